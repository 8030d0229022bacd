"""`sgmv_`: many LoRA adapters in one batch."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from kernels.sgmv.segments import LiveSlice, LiveSlot, add_segments_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv.plan import SgmvPlan


def sgmv_(
    y: Tensor,
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    plan: SgmvPlan,
    *,
    backend: str = "auto",
) -> None:
    """Add each row's LoRA product to y, in place.

    Semantics, for row i with slot s = plan.row_slots[i] ≥ 0 and each slice j of the fused group:

        r = ranks[s, j]
        y[i, slice j] += scales[s, j] * (x[i] @ a[s, j*r_max : j*r_max + r].T) @ b[j][s, :, :r].T

    Rows with slot -1 and slices of rank 0 are neither read nor written.

    Shapes: y [T, sum(widths)], x [T, h], a [slots, slices·r_max, h], b[j] [slots, width_j, r_max],
    ranks int32 [slots, slices], scales float32 [slots, slices]; x, a and b of one dtype.
    Raises `ValueError` with the shapes when they don't fit each other.
    """
    live = _live_views(a, b, ranks.tolist(), scales.tolist(), plan)
    add_segments_(y, x, live, plan)


def _live_views(
    a: Tensor,
    b: Sequence[Tensor],
    ranks: list[list[int]],
    scales: list[list[float]],
    plan: SgmvPlan,
) -> list[LiveSlot | None]:
    """View each used slot at its live ranks, without a copy."""
    r_max = b[0].shape[2]
    offsets = list(accumulate((part.shape[1] for part in b), initial=0))
    live: list[LiveSlot | None] = [None] * plan.slots
    for slot, _, _ in plan.segments:
        slices = []
        columns = [0, *accumulate(ranks[slot])]
        for j, rank in enumerate(ranks[slot]):
            if rank:
                slices.append(
                    LiveSlice(
                        slice(columns[j], columns[j + 1]),
                        slice(offsets[j], offsets[j + 1]),
                        b[j][slot, :, :rank].T,
                        scales[slot][j],
                    )
                )
        if slices:
            packed = torch.cat(
                [a[slot, j * r_max : j * r_max + rank] for j, rank in enumerate(ranks[slot])]
            )
            live[slot] = LiveSlot(packed.T, tuple(slices), offsets[-1])
    return live

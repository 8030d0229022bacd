"""`sgmv_`: many LoRA adapters in one batch."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from kernels.sgmv.segments import LiveSlice, LiveSlot, add_segments_
from kernels.sgmv.tiles import choose_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv.plan import SgmvPlan
    from kernels.sgmv.tiles import Tiles

BACKENDS = ("auto", "torch", "triton")


def sgmv_(  # noqa: PLR0917 - the operands, in the order of the formula
    y: Tensor,
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    plan: SgmvPlan,
    *,
    backend: str = "auto",
    tiles: Tiles | None = None,
) -> None:
    """Add each row's LoRA product to y, in place.

    Semantics, for row i with slot s = row_slots[i] ≥ 0 and each slice j of the fused group:

        r = ranks[s, j]
        y[i, slice j] += scales[s, j] * (x[i] @ a[s, j*r_max : j*r_max + r].T) @ b[j][s, :, :r].T

    Rows with slot -1 and slices of rank 0 are neither read nor written; nor is any weight past
    its live rank.

    Shapes: y [T, sum(widths)], x [T, h], a [slots, slices · r_max, h],
    b[j] [slots, width_j, r_max],
    ranks int32 [slots, slices], scales float32 [slots, slices]. x, a and b have one floating type;
    y may have another. x and y may have any strides, the weights are contiguous.

    `backend` "auto" is Triton on CUDA and torch elsewhere. `tiles` overrides the plan table, for
    benchmarks and tests. Sums run in fp32 (fp64 for fp64 operands), y is rounded once by Triton.

    Raises `ValueError` with the shapes when the operands don't fit each other.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    _check_shapes(y, x, a, b, ranks, scales, plan)
    if backend == "torch" or (backend == "auto" and x.device.type != "cuda"):
        live = _live_views(a, b, ranks.tolist(), scales.tolist(), plan)
        add_segments_(y, x, live, plan)
        return
    # Loading Triton takes half a second that a CPU service need not spend.
    from kernels.sgmv.launch import sgmv_triton_  # noqa: PLC0415

    if x.dtype is torch.float64:
        raise ValueError("the Triton kernels take fp32, fp16 and bf16, got float64")
    if tiles is None:
        tiles = choose_tiles(
            plan.mode, rows=plan.rows, in_features=x.shape[1], max_rank=b[0].shape[2]
        )
    sgmv_triton_(y, x, a, b, ranks, scales, plan, tiles)


def _check_shapes(  # noqa: PLR0917 - the operands of `sgmv_`
    y: Tensor,
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    ranks: Tensor,
    scales: Tensor,
    plan: SgmvPlan,
) -> None:
    slots, slices = plan.slots, len(b)
    max_rank = b[0].shape[-1] if b else 0
    fits = (
        slices > 0
        and x.ndim == 2  # noqa: PLR2004 - a matrix
        and x.shape[0] == plan.rows
        and y.shape == (plan.rows, sum(part.shape[1] for part in b))
        and a.shape == (slots, slices * max_rank, x.shape[1])
        and all(part.shape == (slots, part.shape[1], max_rank) for part in b)
        and ranks.shape == scales.shape == (slots, slices)
    )
    if not fits:
        raise ValueError(
            f"operands don't fit a plan of {plan.rows} rows and {slots} slots: y {list(y.shape)}, "
            f"x {list(x.shape)}, a {list(a.shape)}, b {[list(part.shape) for part in b]}, "
            f"ranks {list(ranks.shape)}, scales {list(scales.shape)}"
        )
    if any(part.dtype != x.dtype for part in (a, *b)) or not x.dtype.is_floating_point:
        raise ValueError(
            f"x, a and b must have one floating type, got {x.dtype}, {a.dtype}, "
            f"{[part.dtype for part in b]}"
        )
    if ranks.dtype != torch.int32 or scales.dtype != torch.float32:
        raise ValueError(
            f"ranks must be int32 and scales float32, got {ranks.dtype}, {scales.dtype}"
        )
    if not all(part.is_contiguous() for part in (a, *b, ranks, scales)):
        raise ValueError("a, b, ranks and scales must be contiguous")


def _live_views(
    a: Tensor,
    b: Sequence[Tensor],
    ranks: list[list[int]],
    scales: list[list[float]],
    plan: SgmvPlan,
) -> list[LiveSlot | None]:
    """View each used slot at its live ranks."""
    max_rank = b[0].shape[2]
    offsets = list(accumulate((part.shape[1] for part in b), initial=0))
    live: list[LiveSlot | None] = [None] * plan.slots
    for slot, _, _ in plan.segments:
        columns = list(accumulate(ranks[slot], initial=0))
        slices = tuple(
            LiveSlice(
                slice(columns[j], columns[j + 1]),
                slice(offsets[j], offsets[j + 1]),
                b[j][slot, :, :rank].T,
                scales[slot][j],
            )
            for j, rank in enumerate(ranks[slot])
            if rank
        )
        if slices:
            packed = torch.cat(
                [a[slot, j * max_rank : j * max_rank + rank] for j, rank in enumerate(ranks[slot])]
            )
            live[slot] = LiveSlot(packed.T, slices, offsets[-1])
    return live

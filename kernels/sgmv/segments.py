"""The torch path: one small pair of matmuls per segment, each at the adapter's own rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.sgmv.plan import SgmvPlan


class LiveSlice(NamedTuple):
    """One linear of a fused group in one slot, as views that need no work per call."""

    columns: slice  # of the shrunk rows
    outputs: slice  # of y
    b: Tensor  # [r, width]
    scale: float


LiveSlot = tuple[Tensor, "tuple[LiveSlice, ...]"]  # A as [in, sum of ranks], and its linears


def add_segments_(y: Tensor, x: Tensor, live: Sequence[LiveSlot | None], plan: SgmvPlan) -> None:
    """y[rows of s, outputs] += scale · (x[rows of s] A[s]) B[s], for each segment of the plan."""
    for slot, rows in plan.segments:
        weights = live[slot]
        if weights is None:
            continue
        a, slices = weights
        shrunk = torch.mm(x[rows], a)
        if isinstance(rows, slice):
            for columns, outputs, b, scale in slices:
                y[rows, outputs].addmm_(shrunk[:, columns], b, alpha=scale)
        else:
            for columns, outputs, b, scale in slices:
                y[:, outputs].index_add_(0, rows, torch.mm(shrunk[:, columns], b), alpha=scale)

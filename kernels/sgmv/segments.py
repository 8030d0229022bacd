"""The torch path: one small pair of matmuls per segment, each at the adapter's own rank."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.sgmv.few_rows import FewRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.sgmv.few_rows import Array
    from kernels.sgmv.plan import SgmvPlan

FLOAT32 = torch.float32

# Up to this many multiply-adds numpy's OpenBLAS takes its small-matrix path: one thread, nothing
# packed. Above it torch's threads win.
SMALL_PRODUCT = 1_000_000

# Rows of a block in invariant mode: every product has the same shape whatever the batch is.
INVARIANT_ROWS = 8


class LiveSlice(NamedTuple):
    """One linear of a fused group in one slot."""

    columns: slice  # of the shrunk rows
    outputs: slice  # of y
    b: Tensor  # [r, width]
    scale: float  # of x A B; 1 where b carries it, see `scaled`
    gain: Tensor | None = None  # float32 [width] with DoRA, see gains.py
    bias: Tensor | None = None  # [width], read only where there is a gain

    @classmethod
    def scaled(cls, columns: slice, outputs: slice, b: Tensor, scale: float) -> LiveSlice:
        """Lay out B [width, r] for products, with the scale in it where that costs no precision.

        In half types B would be rounded once more, where scale is not a power of two.
        """
        if b.dtype in {torch.float32, torch.float64}:
            b, scale = b * scale, 1.0
        return cls(columns, outputs, b.T.contiguous(), scale)

    def combine(self, own: Tensor, delta: Tensor) -> Tensor:
        """Return y's new values from its own and x A B, both [n, width] in the working type.

        Product and sum are separate operations: a fused one would round some elements otherwise.
        """
        if self.gain is None:
            return own + delta * self.scale
        if self.bias is None:
            return (own + delta * self.scale) * self.gain
        return ((own - self.bias) + delta * self.scale) * self.gain + self.bias


class LiveSlot:
    """One adapter in one slot, as views that need no work per call.

    `a` is [in, sum of ranks]; `slices` has only the linears that the adapter changes.
    """

    __slots__ = ("a", "few", "few_rows", "slices")

    def __init__(self, a: Tensor, slices: tuple[LiveSlice, ...], width: int) -> None:
        self.a = a
        self.slices = slices
        self.few_rows: FewRows | None = None
        self.few = 0  # up to how many rows `few_rows` is the faster
        if a.device.type == "cpu" and a.dtype is torch.float32:
            self.few_rows = FewRows(a.numpy(), slices, width)
            self.few = SMALL_PRODUCT // max(a.numel(), *(part.b.numel() for part in slices))

    def add_(self, y: Tensor, x: Tensor, rows: slice | Tensor) -> None:
        """Add the LoRA product of x[rows] to y[rows], in place."""
        shrunk = torch.mm(x[rows], self.a)
        for part in self.slices:
            own = y[:, part.outputs]
            if part.gain is not None:
                working = torch.promote_types(y.dtype, torch.float32)
                delta = torch.mm(shrunk[:, part.columns], part.b).to(working)
                own[rows] = part.combine(own[rows].to(working), delta).to(y.dtype)
            elif isinstance(rows, slice) and y.dtype == x.dtype:
                own[rows].addmm_(shrunk[:, part.columns], part.b, alpha=part.scale)
            elif y.dtype == x.dtype and y.dtype is torch.float32 and isinstance(rows, Tensor):
                own.index_add_(0, rows, torch.mm(shrunk[:, part.columns], part.b), alpha=part.scale)
            else:
                delta = torch.mm(shrunk[:, part.columns], part.b).to(y.dtype)
                own[rows] = own[rows].add_(delta, alpha=part.scale)

    def add_invariant_(self, y: Tensor, x: Tensor, rows: slice | Tensor) -> None:
        """Add in blocks of one fixed shape, so that a row's bits don't depend on the others.

        In fp32 at least: the CPU's half precision products are not alike for all rows of a block.
        """
        working = torch.promote_types(x.dtype, torch.float32)
        gathered = x[rows].to(working)
        count = len(gathered)
        blocks = pad(gathered, (0, 0, 0, -count % INVARIANT_ROWS)).split(INVARIANT_ROWS)
        for part in self.slices:
            a_wide, b_wide = self.a[:, part.columns].to(working), part.b.to(working)
            delta = torch.cat([torch.mm(torch.mm(block, a_wide), b_wide) for block in blocks])
            own = y[:, part.outputs]
            own[rows] = part.combine(own[rows].to(working), delta[:count]).to(y.dtype)


def add_segments_(y: Tensor, x: Tensor, live: Sequence[LiveSlot | None], plan: SgmvPlan) -> None:
    """Add scale · (x[rows of s] A[s]) B[s] to y[rows of s] for each segment s of the plan.

    Slices that have a gain are scaled by it afterwards, see `LiveSlice.combine`.
    """
    if plan.invariant:
        for slot, _, rows in plan.segments:
            weights = live[slot]
            if weights is not None:
                weights.add_invariant_(y, x, rows)
        return
    views = _numpy_views(y, x)
    scratch = plan.scratch
    for slot, count, rows in plan.segments:
        weights = live[slot]
        if weights is None:
            continue
        if views is None or weights.few_rows is None or count > weights.few:
            weights.add_(y, x, rows)
        else:
            weights.few_rows.add_(*views, rows, count, scratch)


def _numpy_views(y: Tensor, x: Tensor) -> tuple[Array, Array] | None:
    if x.dtype is not FLOAT32 or y.dtype is not FLOAT32 or not x.is_cpu:
        return None
    if x.requires_grad or y.requires_grad:
        return None
    return y.numpy(), x.numpy()

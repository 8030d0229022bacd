"""The torch path: one small pair of matmuls per segment, each at the adapter's own rank.

On the CPU a segment of a decode step is a few rows against a narrow matrix, where numpy's matmul
costs half of torch's; decision 020 has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from kernels.sgmv.plan import SgmvMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kernels.sgmv.plan import SgmvPlan

    Array = NDArray[np.float32]

# Up to this many multiply-adds OpenBLAS takes its small-matrix path: one thread, nothing packed.
# Above it torch's threads win.
SMALL_PRODUCT = 1_000_000

# Rows of a block in invariant mode: every product has the same shape whatever the batch is.
INVARIANT_ROWS = 8


class LiveSlice(NamedTuple):
    """One linear of a fused group in one slot."""

    columns: slice  # of the shrunk rows
    outputs: slice  # of y
    b: Tensor  # [r, width]
    scale: float
    gain: Tensor | None = None  # float32 [width] with DoRA, see gains.py
    bias: Tensor | None = None  # [width], read only where there is a gain

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

    def __init__(self, a: Tensor, slices: tuple[LiveSlice, ...], width: int) -> None:
        self.a = a
        self.slices = slices
        # Multiply-adds of the larger of the two products, for one row.
        self.largest_product = max(a.numel(), *(part.b.numel() for part in slices))
        self._covers_all = sum(part.b.shape[1] for part in slices) == width
        if a.device.type == "cpu" and a.dtype is torch.float32:
            self._a_np: Array = a.numpy()
            self._scales_np = np.empty(a.shape[1], np.float32)
            for part in slices:
                self._scales_np[part.columns] = part.scale
            self._slices_np = [(part.columns, part.outputs, part.b.numpy()) for part in slices]
            self._gains_np = [_gain_np(part) for part in slices]
            self._has_gain = any(part.gain is not None for part in slices)

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

    def add_small_(self, y: Array, x: Array, rows: slice | Array) -> None:
        """Do the same by numpy, for few rows in fp32 on the CPU."""
        shrunk = x[rows] @ self._a_np
        shrunk *= self._scales_np
        if self._has_gain:
            self._add_scaled_(y, shrunk, rows)
        elif not self._covers_all:
            for columns, outputs, b in self._slices_np:
                y[rows, outputs] += shrunk[:, columns] @ b
        elif len(self._slices_np) == 1:
            y[rows] += shrunk @ self._slices_np[0][2]
        else:
            delta = np.empty((len(shrunk), y.shape[1]), np.float32)
            for columns, outputs, b in self._slices_np:
                np.matmul(shrunk[:, columns], b, out=delta[:, outputs])
            y[rows] += delta

    def _add_scaled_(self, y: Array, shrunk: Array, rows: slice | Array) -> None:
        for (columns, outputs, b), (gain, bias) in zip(
            self._slices_np, self._gains_np, strict=True
        ):
            delta = shrunk[:, columns] @ b
            if bias is not None:
                delta += y[rows, outputs] - bias
            else:
                delta += y[rows, outputs]
            if gain is not None:
                delta *= gain
            if bias is not None:
                delta += bias
            y[rows, outputs] = delta

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


def _gain_np(part: LiveSlice) -> tuple[Array | None, Array | None]:
    if part.gain is None:
        return None, None
    return part.gain.numpy(), None if part.bias is None else part.bias.float().numpy()


def add_segments_(y: Tensor, x: Tensor, live: Sequence[LiveSlot | None], plan: SgmvPlan) -> None:
    """Add scale · (x[rows of s] A[s]) B[s] to y[rows of s] for each segment s of the plan.

    Slices that have a gain are scaled by it afterwards, see `LiveSlice.combine`.
    """
    if plan.mode is SgmvMode.INVARIANT:
        for slot, _, rows in plan.segments:
            weights = live[slot]
            if weights is not None:
                weights.add_invariant_(y, x, rows)
        return
    small = x.device.type == "cpu" and x.dtype is y.dtype is torch.float32
    small = small and not (x.requires_grad or y.requires_grad)
    x_np, y_np = (x.numpy(), y.numpy()) if small else (None, None)
    for slot, count, rows in plan.segments:
        weights = live[slot]
        if weights is None:
            continue
        if x_np is None or y_np is None or count * weights.largest_product > SMALL_PRODUCT:
            weights.add_(y, x, rows)
        else:
            weights.add_small_(y_np, x_np, rows if isinstance(rows, slice) else rows.numpy())

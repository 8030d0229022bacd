"""A bias for each slot of a fused group, for the few adapters that have one.

y += f · (s · (x Aᵀ) Bᵀ + β) + δ. The products know neither β, which a row's scale f scales, nor
δ, which it does not: both are added behind them, row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.kernels.sgmv.group import GroupShape, LoraPair
    from aril.kernels.sgmv.plan import SgmvPlan


class SlotBiases:
    """The biases of all slots of one group, [slots + 1, sum(widths)] in y's type.

    The last row is that of rows without an adapter. It holds -0, and so does a slot without a bias:
    adding it changes no bit of a row.
    """

    def __init__(
        self, shape: GroupShape, slots: int, *, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.shape = shape
        self.values = torch.full((slots + 1, sum(shape.widths)), -0.0, device=device, dtype=dtype)
        # β of the few slots that have one: `values` has it too, since most rows have the scale 1.
        self._scaled: dict[int, Tensor] = {}

    def load(self, slot: int, pairs: Sequence[LoraPair | None]) -> None:
        """Put an adapter's biases into a slot, in place of all that was there."""
        self.clear(slot)
        scaled = torch.zeros(self.values.shape[1], device=self.values.device)
        for pair, width, offset in zip(pairs, self.shape.widths, self.shape.offsets, strict=True):
            outputs = slice(offset, offset + width)
            if pair is not None and pair.bias is not None:
                self.values[slot, outputs].copy_(pair.bias)
            if pair is not None and pair.scaled_bias is not None:
                scaled[outputs].copy_(pair.scaled_bias)
                self._scaled[slot] = scaled

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self.values[slot].fill_(-0.0)
        self._scaled.pop(slot, None)

    def add_(self, y: Tensor, plan: SgmvPlan) -> None:
        """Add each row's bias to y [T, sum(widths)], in place."""
        y.add_(self.values[plan.row_slots.long()])  # -1 is the last row
        if not self._scaled or plan.row_scales is None:
            return
        for slot, _, rows, scales in plan.segments:
            if scales is not None and slot in self._scaled:
                own = y[rows]
                more = own + ((scales - 1) * self._scaled[slot]).to(y.dtype)
                y[rows] = torch.where(scales == 1, own, more)

"""A bias for each slot of a fused group, for the few adapters that have one.

y += s · (x Aᵀ) Bᵀ + β. The products know nothing of β, it is added behind them, row by row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv.group import GroupShape, LoraPair
    from kernels.sgmv.plan import SgmvPlan


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

    def load(self, slot: int, pairs: Sequence[LoraPair | None]) -> None:
        """Put an adapter's biases into a slot, in place of all that was there."""
        self.clear(slot)
        for pair, width, offset in zip(pairs, self.shape.widths, self.shape.offsets, strict=True):
            if pair is not None and pair.bias is not None:
                self.values[slot, offset : offset + width].copy_(pair.bias)

    def clear(self, slot: int) -> None:
        """Empty a slot."""
        self.values[slot].fill_(-0.0)

    def add_(self, y: Tensor, plan: SgmvPlan) -> None:
        """Add each row's bias to y [T, sum(widths)], in place."""
        y.add_(self.values[plan.row_slots.long()])  # -1 is the last row

"""DoRA's gains: what the outputs of a changed linear are multiplied by, beside the slots' weights.

DoRA (arXiv 2402.09353) learns a length m for each output of a linear apart from its direction:
y = g ⊙ (x Wᵀ + s · (x Aᵀ) Bᵀ) + bias, with g = m / ‖W + s · B A‖, the norm of each row of the
changed weight. The gain g is all that a batch has to know; whoever has W computes it at load.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class Gains(NamedTuple):
    """The gains of all slots of one fused group, and the bias that they must not touch.

    `values` float32 [slots, sum(widths)]; `present` int32 [slots, slices] is 1 where a slice of a
    slot has gains, elsewhere `values` is not read. `bias` [sum(widths)] is what the backbone has
    already added to y, None for none.
    """

    values: Tensor
    present: Tensor
    bias: Tensor | None = None

    def check(self, slots: int, widths: Sequence[int]) -> None:
        """Raise `ValueError` when the tensors don't fit a group of these slots and widths."""
        width = sum(widths)
        fits = (
            self.values.shape == (slots, width)
            and self.present.shape == (slots, len(widths))
            and (self.bias is None or self.bias.shape == (width,))
        )
        if not fits:
            bias = "none" if self.bias is None else list(self.bias.shape)
            raise ValueError(
                f"gains don't fit {slots} slots of {len(widths)} linears with {width} outputs: "
                f"values {list(self.values.shape)}, present {list(self.present.shape)}, bias {bias}"
            )
        if self.values.dtype != torch.float32 or self.present.dtype != torch.int32:
            raise ValueError(
                f"gains must be float32 and their presence int32, got {self.values.dtype}, "
                f"{self.present.dtype}"
            )
        parts = (self.values, self.present) if self.bias is None else self
        if not all(part is not None and part.is_contiguous() for part in parts):
            raise ValueError("gains, their presence and the bias must be contiguous")

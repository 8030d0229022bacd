"""Slots in stacked tensors: the weights of one fused group as the Triton kernels read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kernels.sgmv.gains import Gains
from kernels.sgmv.ops import sgmv_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from kernels.sgmv.group import GroupShape, LoraPair
    from kernels.sgmv.plan import SgmvPlan


class StackedWeights:
    """Slots in static stacked tensors at the highest rank: what the Triton kernels read.

    Loading writes in place, so CUDA graphs that were captured before see the new weights.
    """

    def __init__(
        self,
        shape: GroupShape,
        slots: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        bias: Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        count = len(shape.widths)
        self.shape = shape
        self.slots = slots
        self.backend = backend
        self.a = torch.zeros(
            slots, count * shape.max_rank, shape.in_features, device=device, dtype=dtype
        )
        self.b = tuple(
            torch.zeros(slots, width, shape.max_rank, device=device, dtype=dtype)
            for width in shape.widths
        )
        self.ranks = torch.zeros(slots, count, device=device, dtype=torch.int32)
        self.scales = torch.zeros(slots, count, device=device, dtype=torch.float32)
        self.gains = Gains(
            torch.zeros(slots, sum(shape.widths), device=device, dtype=torch.float32),
            torch.zeros(slots, count, device=device, dtype=torch.int32),
            bias,
        )
        self._with_gains: set[int] = set()

    def load(self, slot: int, pairs: Sequence[LoraPair | None]) -> None:
        """Put an adapter into a slot; see `SlotWeights.load`."""
        self.shape.check(pairs)
        self.clear(slot)
        for index, (pair, offset) in enumerate(zip(pairs, self.shape.offsets, strict=True)):
            if pair is None:
                continue
            rank = pair.a.shape[0]
            first = index * self.shape.max_rank
            self.a[slot, first : first + rank].copy_(pair.a)
            self.b[index][slot, :, :rank].copy_(pair.b)
            self.scales[slot, index] = pair.scale
            if pair.gain is not None:
                self.gains.values[slot, offset : offset + len(pair.gain)].copy_(pair.gain)
                self.gains.present[slot, index] = 1
                self._with_gains.add(slot)
            self.ranks[slot, index] = rank

    def clear(self, slot: int) -> None:
        """Empty a slot wholly, so that nothing of a larger adapter stays behind a smaller one."""
        self._with_gains.discard(slot)
        self.ranks[slot].zero_()
        self.scales[slot].zero_()
        self.gains.present[slot].zero_()
        self.gains.values[slot].zero_()
        self.a[slot].zero_()
        for b in self.b:
            b[slot].zero_()

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add the LoRA products; see `SlotWeights.add_`.

        Gains are left out while no adapter has any, which changes no bit of a row without them; not
        with a static plan, whose captured launches may meet such an adapter later.
        """
        gains = self.gains if self._with_gains or plan.static else None
        sgmv_(
            y,
            x,
            self.a,
            self.b,
            self.ranks,
            self.scales,
            plan,
            gains=gains,
            backend=self.backend,
        )

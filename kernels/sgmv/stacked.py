"""Slots in stacked tensors: the weights of one fused group as the Triton kernels read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from aril.kernels.sgmv.gains import Gains
from aril.kernels.sgmv.ops import sgmv_
from aril.kernels.sgmv.slot_copies import SlotCopies

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from aril.kernels.sgmv.group import GroupShape, LoraPair
    from aril.kernels.sgmv.plan import SgmvPlan


class StackedWeights:
    """Slots in static stacked tensors at the highest rank: what the Triton kernels read.

    Loading writes in place, so CUDA graphs that were captured before see the new weights.
    """

    in_machine_code = False

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

    def load(
        self, slot: int, pairs: Sequence[LoraPair | None], copies: SlotCopies | None = None
    ) -> None:
        """Put an adapter into a slot; see `SlotWeights.load`."""
        self.shape.check(pairs)
        own = SlotCopies(self._send) if copies is None else copies
        self._empty(slot, own)
        for index, (pair, offset) in enumerate(zip(pairs, self.shape.offsets, strict=True)):
            if pair is None:
                continue
            rank = pair.a.shape[0]
            first = index * self.shape.max_rank
            own.copy(self.a[slot, first : first + rank], pair.a)
            own.copy(self.b[index][slot, :, :rank], pair.b)
            if pair.gain is not None:
                own.copy(self.gains.values[slot, offset : offset + len(pair.gain)], pair.gain)
                self._with_gains.add(slot)
        own.numbers(self.ranks[slot], [0 if pair is None else pair.a.shape[0] for pair in pairs])
        own.numbers(self.scales[slot], [0.0 if pair is None else pair.scale for pair in pairs])
        own.numbers(
            self.gains.present[slot], [pair is not None and pair.gain is not None for pair in pairs]
        )
        if copies is None:
            own.run()

    def clear(self, slot: int, copies: SlotCopies | None = None) -> None:
        """Empty a slot wholly; see `SlotWeights.clear`."""
        own = SlotCopies(self._send) if copies is None else copies
        self._empty(slot, own)
        for numbers in (self.ranks, self.scales, self.gains.present):
            own.zero(numbers[slot])
        if copies is None:
            own.run()

    def _empty(self, slot: int, copies: SlotCopies) -> None:
        """Let nothing of a larger adapter stay behind a smaller one."""
        self._with_gains.discard(slot)
        copies.zero(self.a[slot], *(b[slot] for b in self.b), self.gains.values[slot])

    def _send(self, arrays: Sequence[NDArray[Any]]) -> list[Tensor]:
        return [torch.from_numpy(each).to(self.a.device) for each in arrays]

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

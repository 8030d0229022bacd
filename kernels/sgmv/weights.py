"""LoRA weights of one fused group of linears, resident in slots."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from kernels.sgmv.gains import Gains
from kernels.sgmv.ops import BACKENDS, sgmv_
from kernels.sgmv.segments import LiveSlice, LiveSlot, add_segments_

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.sgmv.plan import SgmvPlan


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One linear's LoRA: `a` [r, in], `b` [out, r] and the scale of their product.

    With DoRA also its `gain` [out], see gains.py.
    """

    a: Tensor
    b: Tensor
    scale: float
    gain: Tensor | None = None


class GroupShape(NamedTuple):
    """A fused group: linears that read the same x; their outputs lie side by side in y."""

    in_features: int
    widths: tuple[int, ...]
    max_rank: int

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where each linear's columns begin in y."""
        return tuple(accumulate(self.widths[:-1], initial=0))

    def check(self, pairs: Sequence[LoraPair | None]) -> None:
        """Raise `ValueError` when the pairs don't fit the group."""
        if len(pairs) != len(self.widths):
            raise ValueError(f"the group has {len(self.widths)} linears, got {len(pairs)} pairs")
        for index, (pair, width) in enumerate(zip(pairs, self.widths, strict=True)):
            if pair is None:
                continue
            rank = pair.a.shape[0]
            if pair.a.shape != (rank, self.in_features) or pair.b.shape != (width, rank):
                raise ValueError(
                    f"linear {index}: A {tuple(pair.a.shape)} and B {tuple(pair.b.shape)} don't "
                    f"fit [r, {self.in_features}] and [{width}, r]"
                )
            if not 1 <= rank <= self.max_rank:
                raise ValueError(f"linear {index}: rank {rank} is not in 1..{self.max_rank}")
            if pair.gain is not None and pair.gain.shape != (width,):
                raise ValueError(
                    f"linear {index}: gain {tuple(pair.gain.shape)} doesn't fit [{width}]"
                )


class SlotWeights(Protocol):
    """Where a fused group's adapters live; `add_` adds their product to the backbone's y."""

    shape: GroupShape
    slots: int

    def load(self, slot: int, pairs: Sequence[LoraPair | None]) -> None:
        """Put an adapter into a slot, in place of all that was there; None = linear untouched."""

    def clear(self, slot: int) -> None:
        """Empty a slot: rows that still name it are left as they are."""

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add the LoRA of x [T, in] to y [T, sum(widths)] by the plan's rows, in place."""


def make_slot_weights(
    shape: GroupShape,
    slots: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    bias: Tensor | None = None,
    backend: str = "auto",
) -> SlotWeights:
    """Make the store that suits the backend: packed for torch, stacked for Triton.

    `bias` [sum(widths)] is the backbone's, part of y before `add_`: gains leave it out.
    """
    device = torch.device(device)
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if backend == "auto":
        backend = "triton" if device.type == "cuda" else "torch"
    if backend == "torch":
        return PackedWeights(shape, slots, device=device, dtype=dtype, bias=bias)
    return StackedWeights(shape, slots, device=device, dtype=dtype, bias=bias, backend=backend)


class PackedWeights:
    """Slots that hold each adapter at its own rank, in the layout that CPU matmuls like best."""

    __slots__ = ("_device", "_dtype", "_live", "bias", "shape", "slots")

    def __init__(
        self,
        shape: GroupShape,
        slots: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        bias: Tensor | None = None,
    ) -> None:
        self.shape = shape
        self.slots = slots
        self.bias = bias
        self._device = device
        self._dtype = dtype
        self._live: list[LiveSlot | None] = [None] * slots

    def load(self, slot: int, pairs: Sequence[LoraPair | None]) -> None:
        """Put an adapter into a slot; see `SlotWeights.load`."""
        self.shape.check(pairs)
        given = [
            (offset, width, pair)
            for offset, width, pair in zip(
                self.shape.offsets, self.shape.widths, pairs, strict=True
            )
            if pair is not None
        ]
        if not given:
            self.clear(slot)
            return
        a = torch.cat([pair.a.to(self._device, self._dtype) for _, _, pair in given]).T.contiguous()
        slices = []
        column = 0
        for offset, width, pair in given:
            rank = pair.a.shape[0]
            b = pair.b.to(self._device, self._dtype)
            columns, outputs = slice(column, column + rank), slice(offset, offset + width)
            part = LiveSlice.scaled(columns, outputs, b, pair.scale)
            if pair.gain is not None:
                part = part._replace(
                    gain=pair.gain.to(self._device, torch.float32).contiguous(),
                    bias=None if self.bias is None else self.bias[outputs],
                )
            slices.append(part)
            column += rank
        self._live[slot] = LiveSlot(a, tuple(slices), sum(self.shape.widths))

    def clear(self, slot: int) -> None:
        """Empty a slot and free its memory."""
        self._live[slot] = None

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add the LoRA products; see `SlotWeights.add_`."""
        add_segments_(y, x, self._live, plan)


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

"""Slots that machine code reads: one call for all adapters of a batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.kernels.native import NativeBlocks, NativeLinear, NativeSlots, add_lora_
from aril.kernels.program import settle
from aril.kernels.sgmv.packed.adapter import pack
from aril.kernels.sgmv.row_tasks import TOGETHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.kernels.sgmv.group import GroupShape, LoraPair
    from aril.kernels.sgmv.packed.adapter import PackedAdapter
    from aril.kernels.sgmv.plan import SgmvPlan
    from aril.kernels.sgmv.slot_copies import SlotCopies


class NativeAdapters:
    """Numbered adapters of one place; `add_` adds them to rows, see `SlotWeights`."""

    def __init__(self, count: int, dtype: torch.dtype) -> None:
        self._dtype = dtype
        self._slots = NativeSlots(count, dtype)
        self._count = count
        self._shape: tuple[int, int] | None = None  # in, out: of all adapters alike

    @property
    def told(self) -> tuple[int, int]:
        """See `NativeWeights.told`."""
        return self._slots.address, self._slots.most

    def put(self, slot: int, adapter: PackedAdapter | None) -> None:
        """Put an adapter in, or take it out.

        Raises `ValueError` for one of another shape than those before it.
        """
        if adapter is None:
            self._slots.clear(slot)
            return
        shape = len(adapter.a), adapter.width
        if self._shape not in {None, shape}:
            raise ValueError(f"an adapter of {shape} beside those of {self._shape}")
        self._shape = shape
        linears = [
            NativeLinear(
                part.columns.start,
                part.outputs.start,
                part.b,
                part.scale,
                part.gain,
                None if part.bias is None else part.bias.float().contiguous(),
            )
            for part in adapter.linears
        ]
        self._slots.load(slot, adapter.a, linears)

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add the adapters' products. Raises `ValueError` for operands that do not fit them.

        A row's bits depend on nothing but the row and its adapter.
        """
        if x.dtype is not self._dtype or y.dtype is not self._dtype:
            raise ValueError(
                f"the weights are for {self._dtype}: x and y must be too, got {x.dtype}, {y.dtype}"
            )
        if self._shape is None:
            return
        fits = y.shape == (plan.rows, self._shape[1]) and x.shape == (plan.rows, self._shape[0])
        if not fits or y.stride(1) != 1 or plan.slots != self._count:
            raise ValueError(
                f"mismatch of a plan of {plan.rows} rows and {plan.slots} slots, adapters of "
                f"{self._shape}, x {list(x.shape)} and y {list(y.shape)} of stride {y.stride()}"
            )
        if x.requires_grad or y.requires_grad:
            raise ValueError("machine code has no gradients: backend 'torch' has")
        own = x
        if x.stride(1) != 1:
            settle()  # what makes x
            own = x.contiguous()
        tasks = plan.row_tasks
        if tasks.blocks is None:
            tasks.blocks = NativeBlocks(tasks.tasks, tasks.rows, tasks.scales, TOGETHER)
        add_lora_(y, own, self._slots, tasks.blocks)
        if own is not x:
            settle()  # while the copy lives


class NativeWeights:
    """The slots of one fused group; loading an adapter costs its own size."""

    in_machine_code = True

    def __init__(
        self, shape: GroupShape, slots: int, *, dtype: torch.dtype, bias: Tensor | None = None
    ) -> None:
        self.shape = shape
        self.slots = slots
        self.bias = bias
        self._dtype = dtype
        self._adapters = NativeAdapters(slots, dtype)

    @property
    def told(self) -> tuple[int, int]:
        """What tells the calls of two groups of one shape apart: an address, and a width."""
        return self._adapters.told

    def load(
        self,
        slot: int,
        pairs: Sequence[LoraPair | None],
        copies: SlotCopies | None = None,  # noqa: ARG002 - an adapter's memory is its own here
    ) -> None:
        """Put an adapter into a slot; see `SlotWeights.load`."""
        self.shape.check(pairs)
        cpu = torch.device("cpu")
        packed = pack(pairs, self.shape, device=cpu, dtype=self._dtype, bias=self.bias)
        self._adapters.put(slot, packed)

    def clear(self, slot: int, copies: SlotCopies | None = None) -> None:  # noqa: ARG002 - same
        """Empty a slot and free its memory."""
        self._adapters.put(slot, None)

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add the LoRA products; see `SlotWeights.add_` and `NativeAdapters.add_`."""
        self._adapters.add_(y, x, plan)

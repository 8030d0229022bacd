"""Slots that hold each adapter packed: what torch multiplies by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.kernels.sgmv.packed.adapter import pack, slot_type
from aril.kernels.sgmv.packed.products import add_rounded_once_
from aril.kernels.sgmv.packed.torch_products import TorchProducts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch import Tensor

    from aril.kernels.sgmv.group import GroupShape, LoraPair
    from aril.kernels.sgmv.plan import SgmvPlan
    from aril.kernels.sgmv.slot_copies import SlotCopies


class PackedWeights:
    """The slots of one fused group; loading an adapter costs its own size.

    `bias` as in `make_slot_weights`.
    """

    in_machine_code = False

    __slots__ = ("_adapters", "_device", "_dtype", "_working", "bias", "shape", "slots")

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
        self._working = slot_type(dtype, device, "torch")
        self._adapters: list[TorchProducts | None] = [None] * slots

    def load(
        self,
        slot: int,
        pairs: Sequence[LoraPair | None],
        copies: SlotCopies | None = None,  # noqa: ARG002 - an adapter's memory is its own here
    ) -> None:
        """Put an adapter into a slot; see `SlotWeights.load`."""
        self.shape.check(pairs)
        adapter = pack(pairs, self.shape, device=self._device, dtype=self._working, bias=self.bias)
        self._adapters[slot] = adapter and TorchProducts(adapter, self._working)

    def clear(self, slot: int, copies: SlotCopies | None = None) -> None:  # noqa: ARG002 - same
        """Empty a slot and free its memory."""
        self._adapters[slot] = None

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add the LoRA products; see `SlotWeights.add_`. Raises `ValueError` for other types."""
        if x.dtype is not self._dtype or y.dtype is not self._dtype:
            raise ValueError(
                f"the weights are for {self._dtype}: x and y must be too, got {x.dtype}, {y.dtype}"
            )
        add_rounded_once_(y, x, self._adapters, plan, self._working)

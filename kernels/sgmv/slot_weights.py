"""LoRA weights of one fused group of linears, resident in slots: the interface to build on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch

from aril.kernels.backend import uses_native, uses_triton
from aril.kernels.sgmv.packed import PackedWeights
from aril.kernels.sgmv.stacked import StackedWeights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.kernels.sgmv.group import GroupShape, LoraPair
    from aril.kernels.sgmv.plan import SgmvPlan
    from aril.kernels.sgmv.slot_copies import SlotCopies


class SlotWeights(Protocol):
    """Where a fused group's adapters live; `add_` adds their product to the backbone's y.

    For one thread at a time.
    """

    shape: GroupShape
    slots: int
    in_machine_code: bool  # whether `add_` can be written down (kernels/program.py)

    def load(
        self, slot: int, pairs: Sequence[LoraPair | None], copies: SlotCopies | None = None
    ) -> None:
        """Put an adapter into a slot, in place of all that was there; None = linear untouched.

        Where `copies` are given, a store whose slots are memory of its own leaves writing to them.
        Raises `ValueError` with the shapes when the pairs don't fit the group; nothing has changed
        then.
        """

    def clear(self, slot: int, copies: SlotCopies | None = None) -> None:
        """Empty a slot: rows that still name it are left as they are. See `load`."""

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add the LoRA of x [T, in] to y [T, sum(widths)] by the plan's rows, in place.

        x and y have the weights' type.
        """


def make_slot_weights(
    shape: GroupShape,
    slots: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    bias: Tensor | None = None,
    backend: str = "auto",
) -> SlotWeights:
    """Make the store that suits the backend: packed for torch and machine code, stacked for Triton.

    `bias` [sum(widths)] is the backbone's, part of y before `add_`: gains leave it out.
    """
    device = torch.device(device)
    if uses_triton(backend, device):
        return StackedWeights(shape, slots, device=device, dtype=dtype, bias=bias, backend="triton")
    if uses_native(backend, device, dtype):
        from aril.kernels.sgmv.native_weights import NativeWeights  # noqa: PLC0415 - loads Numba

        return NativeWeights(shape, slots, dtype=dtype, bias=bias)
    return PackedWeights(shape, slots, device=device, dtype=dtype, bias=bias)

"""Slots whose adapters have an A and a B for each expert: a pair is chosen by slot and expert."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from aril.kernels.backend import uses_native
from aril.kernels.sgmv.packed import (
    PackedAdapter,
    PackedLinear,
    TorchProducts,
    add_rounded_once_,
    slot_type,
)
from aril.kernels.sgmv.packed.adapter import SCALED_TYPES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from aril.kernels.sgmv.plan import SgmvPlan


class _Entries(Protocol):
    def put(self, slot: int, adapter: PackedAdapter | None) -> None: ...

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None: ...


class _TorchEntries:
    def __init__(self, count: int, working: torch.dtype) -> None:
        self._working = working
        self._products: list[TorchProducts | None] = [None] * count

    def put(self, slot: int, adapter: PackedAdapter | None) -> None:
        self._products[slot] = adapter and TorchProducts(adapter, self._working)

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        add_rounded_once_(y, x, self._products, plan, self._working)


class PackedExperts:
    """The adapters of one layer's experts at one place, each at its own rank.

    An entry is a pair of slot and expert, numbered slot · experts + expert: the plan of a step is
    one over entries. Memory is taken by `pack`, as much as the adapter has.
    """

    def __init__(
        self,
        slots: int,
        experts: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        backend: str = "auto",
    ) -> None:
        self.slots = slots
        self.experts = experts
        self._device = device
        self._dtype = dtype
        self._working = slot_type(dtype, device, backend)
        self._entries: _Entries = _TorchEntries(slots * experts, self._working)
        if uses_native(backend, device, dtype):
            from aril.kernels.sgmv.native_weights import NativeAdapters  # noqa: PLC0415 - loads Numba

            self._entries = NativeAdapters(slots * experts, dtype)

    def pack(self, a: Tensor, b: Tensor, scale: float) -> list[PackedAdapter]:
        """Lay out an adapter for `put`: a [experts, r, in] and b [experts, out, r], any strides.

        Raises `ValueError` with the shapes when they do not fit each other.
        """
        if not (a.ndim == b.ndim == 3 and len(a) == len(b) == self.experts) or (  # noqa: PLR2004
            a.shape[1] != b.shape[2]
        ):
            raise ValueError(
                f"A {list(a.shape)} and B {list(b.shape)} don't fit [{self.experts}, r, in] and"
                f" [{self.experts}, out, r]"
            )
        _, rank, _ = a.shape
        width = b.shape[1]
        columns = a.to(self._device, self._working).transpose(1, 2).contiguous()  # [experts, in, r]
        rows = b.to(self._device, self._working)
        if self._working in SCALED_TYPES:
            rows, scale = rows * scale, 1.0
        rows = rows.transpose(1, 2).contiguous()  # [experts, r, out]
        place = slice(0, rank), slice(0, width)
        return [
            PackedAdapter(own_a, (PackedLinear(*place, own_b, scale),), width)
            for own_a, own_b in zip(columns, rows, strict=True)
        ]

    def put(self, slot: int, adapters: list[PackedAdapter] | None) -> None:
        """Put what `pack` made into a slot, or empty it."""
        for expert in range(self.experts):
            own = None if adapters is None else adapters[expert]
            self._entries.put(slot * self.experts + expert, own)

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add scale · (x[i] A[e]ᵀ) B[e]ᵀ to y[i] for each row i by its entry, in place.

        x [S, in] and y [S, out] have the weights' type; `plan` is over `slots` · `experts` entries.
        """
        if plan.slots != self.slots * self.experts:
            entries = self.slots * self.experts
            raise ValueError(f"a plan of {plan.slots} entries, there are {entries}")
        if x.dtype is not self._dtype or y.dtype is not self._dtype:
            raise ValueError(
                f"the weights are for {self._dtype}: x and y must be too, got {x.dtype}, {y.dtype}"
            )
        self._entries.add_(y, x, plan)

"""Slots whose adapters have an A and a B for each expert: a pair is chosen by slot and expert."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernels.sgmv.packed.adapter import SCALED_TYPES, PackedAdapter, PackedLinear, slot_type
from kernels.sgmv.packed.products import add_rounded_once_, choose_products
from kernels.sgmv.packed.scratch import Scratch

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from kernels.sgmv.packed.products import Products
    from kernels.sgmv.plan import SgmvPlan


class PackedExperts:
    """The adapters of one layer's experts at one place, each at its own rank.

    An entry is a pair of slot and expert, numbered slot · experts + expert: the plan of a step is
    one over entries. Memory is taken by `pack`, as much as the adapter has.
    """

    __slots__ = ("_device", "_dtype", "_entries", "_scratch", "_working", "experts", "slots")

    def __init__(
        self,
        slots: int,
        experts: int,
        *,
        device: torch.device,
        dtype: torch.dtype,
        scratch: Scratch | None = None,
    ) -> None:
        self.slots = slots
        self.experts = experts
        self._device = device
        self._dtype = dtype
        self._working = slot_type(dtype, device)
        self._scratch = Scratch() if scratch is None else scratch
        self._entries: list[Products | None] = [None] * (slots * experts)

    def pack(self, a: Tensor, b: Tensor, scale: float) -> list[Products]:
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
            choose_products(
                PackedAdapter(own_a, (PackedLinear(*place, own_b, scale),), width),
                self._scratch,
                self._working,
            )
            for own_a, own_b in zip(columns, rows, strict=True)
        ]

    def put(self, slot: int, products: list[Products] | None) -> None:
        """Put what `pack` made into a slot, or empty it."""
        first = slot * self.experts
        entries: list[Products | None] = [None] * self.experts
        self._entries[first : first + self.experts] = products or entries

    def add_(self, y: Tensor, x: Tensor, plan: SgmvPlan) -> None:
        """Add scale · (x[i] A[e]ᵀ) B[e]ᵀ to y[i] for each row i by its entry, in place.

        x [S, in] and y [S, out] have the weights' type; `plan` is over `slots` · `experts` entries.
        """
        if plan.slots != len(self._entries):
            raise ValueError(f"a plan of {plan.slots} entries, there are {len(self._entries)}")
        if x.dtype is not self._dtype or y.dtype is not self._dtype:
            raise ValueError(
                f"the weights are for {self._dtype}: x and y must be too, got {x.dtype}, {y.dtype}"
            )
        add_rounded_once_(y, x, self._entries, plan, self._working)

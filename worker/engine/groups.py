"""Linears that read the same input, computed together.

q, k, v and gate, up are separate modules in most models. Siblings share one stacked weight here:
the first computes the base product and the LoRA product of all and leaves the others' outputs with
the group, where each picks up its own. So a layer reads x once, and one pair of LoRA launches
serves the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as base_linear

from aril.worker.engine.block_products import BLOCK_ROWS, ROW_COUNTS, in_pieces
from aril.worker.engine.int8_weight import Int8Weight
from aril.worker.engine.packed_weight import PackedWeight, can_pack
from aril.worker.engine.row_classes import alike_row_counts
from aril.worker.engine.smoothing import smoothing_factors
from aril.worker.engine.tiled_weight import TiledWeight, can_tile

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from aril.kernels.sgmv import SgmvPlan, SlotBiases, SlotWeights


Packed: TypeAlias = PackedWeight | Int8Weight | TiledWeight


@dataclass(slots=True)
class StepState:
    """What the groups of a model share in one step."""

    # The adapters of each row, one a plan: the first has all rows with any, a second one those of
    # mixtures. None where no row of this step has an adapter.
    plans: tuple[SgmvPlan, ...] = ()
    invariant: bool = False  # products run in row counts that give a row the same bits
    changes: int = 0  # of groups' weights and adapters, so far


@dataclass(frozen=True, slots=True)
class _Pending:
    """What one call of the first member left for the others."""

    x: Tensor
    outputs: dict[int, Tensor]  # by member, until it picks its own up


class LinearGroup:
    """One or more linears of equal input, with the slots of their adapters.

    The members are in the order in which the model calls them. `weights` is None as long as no
    adapter can touch the group.
    """

    def __init__(self, names: Sequence[str], linears: Sequence[Any], state: StepState) -> None:
        self.names = tuple(names)
        self.weights: SlotWeights | None = None
        self.biases: SlotBiases | None = None  # once an adapter has brought one
        self.state = state
        self.weight, self.bias = _stack(linears)
        self.in_features = self.weight.shape[1]
        self.widths = tuple(len(linear.weight) for linear in linears)
        weights = self.weight.split(self.widths)
        biases = [None] * len(linears) if self.bias is None else self.bias.split(self.widths)
        self.members = tuple(
            LoraLinear(self, index, weight, bias)
            for index, (weight, bias) in enumerate(zip(weights, biases, strict=True))
        )
        self._packed: Packed | None = None
        self._pack: Callable[[Tensor, Tensor | None], Packed] = PackedWeight
        # Of the products; None: of whatever has come.
        self.row_counts: tuple[int, ...] | None = (BLOCK_ROWS,) if state.invariant else None
        self._pending: _Pending | None = None

    def first(self, x: Tensor) -> Tensor:
        """Return x [..., in] through the first member, [..., width]; compute all the others too."""
        if len(self.widths) == 1:
            return self.compute(x)
        own, *others = self.compute(x).split(self.widths, dim=-1)
        self._pending = _Pending(x, dict(enumerate(others, start=1)))
        return own

    def later(self, index: int, x: Tensor) -> Tensor:
        """Return x [..., in] through a later member, [..., width].

        What the first one left is given out once, and only for the very tensor that it saw. All
        else is computed anew: that costs time, never the answer.
        """
        pending = self._pending
        if pending is None or pending.x is not x or index not in pending.outputs:
            self._pending = None
            return self.compute(x).split(self.widths, dim=-1)[index]
        output = pending.outputs.pop(index)
        if not pending.outputs:
            self._pending = None  # so that activations don't outlive the layer
        return output

    def forget(self) -> None:
        """Drop what was left and not picked up: a new step may come in the same tensors."""
        self._pending = None

    def pack(self, backend: str = "auto", largest: Tensor | None = None) -> None:
        """Trade the weight for one that is faster to multiply by, where there is such a thing.

        With `largest`, x's largest numbers by column [in], for one in eight bits. `weight`, and
        that of each member, is then a shape without contents; see `dense_weights`.
        """
        tiled = largest is None and can_tile(self.weight, backend)
        if self._packed is None and (largest is not None or tiled or can_pack(self.weight)):
            if largest is not None:
                factors = smoothing_factors(largest, self.weight)
                self._pack = partial(Int8Weight, factors=factors)
            elif tiled:
                self._pack = TiledWeight
            self._packed = self._pack(self.weight, self.bias)
            if tiled:  # a row's bits are the same in all
                self.row_counts = None
            elif not self.state.invariant:
                self.row_counts = ROW_COUNTS
            self.weight = self.weight.to("meta")
            for member in self.members:
                member.weight = nn.Parameter(member.weight.to("meta"), requires_grad=False)

    @property
    def kind(self) -> tuple[torch.Size, torch.dtype, bool, type]:
        """What a library chooses a product's kernel by, beside the number of rows."""
        return self.weight.shape, self.weight.dtype, self.bias is None, type(self._packed)

    def find_row_counts(self, asked: Sequence[int]) -> tuple[int, ...] | None:
        """Return those of `asked` under which a row has the same bits: see row_classes.py.

        None: all row counts there are.
        """
        if isinstance(self._packed, TiledWeight):
            return None
        plain = self._packed is None
        bias = None if self.bias is None else torch.zeros_like(self.bias)

        def make(weight: Tensor) -> Callable[[Tensor], Tensor]:
            return (
                partial(base_linear, weight=weight, bias=bias)
                if plain
                else self._pack(weight, bias)
            )

        out, width = self.weight.shape
        integers = isinstance(self._packed, Int8Weight)
        return alike_row_counts(make, (out, width), self.weight.dtype, asked, integers=integers)

    def dense_weights(self) -> tuple[Tensor, ...]:
        """Each member's weight [width, in]; of a packed group a copy that is laid out plainly."""
        weight = self.weight if self._packed is None else self._packed.dense()
        return weight.split(self.widths)

    @property
    def in_machine_code(self) -> bool:
        """Whether `compute_into` serves: all that works on x is a call of machine code."""
        weights = self.weights
        return (
            isinstance(self._packed, TiledWeight)
            and self.biases is None
            and (weights is None or weights.in_machine_code)
        )

    def own(self) -> tuple[Hashable, tuple[int, ...]]:
        """Return what kind of calls `compute_into` makes, and the addresses that are its own."""
        packed, weights = self._packed, self.weights
        addresses = packed.addresses  # type: ignore[union-attr]  # as was asked
        if weights is None:
            return self.weight.shape, addresses
        slots, width = weights.told  # type: ignore[attr-defined]  # those of machine code
        return (self.weight.shape, width), (*addresses, slots)

    def compute_into(self, y: Tensor, x: Tensor) -> None:
        """Write x [T, in] through all members to y [T, sum of widths]; see `in_machine_code`."""
        self._packed.into(y, x)  # type: ignore[union-attr]  # as was asked
        if self.weights is not None:
            for plan in self.state.plans:
                self.weights.add_(y, x, plan)

    def compute(self, x: Tensor) -> Tensor:
        """Return x [..., in] through all members, side by side [..., sum of widths]."""
        counts = self.row_counts
        y = self._multiply(x) if counts is None else in_pieces(self._multiply, x, counts)
        plans = self.state.plans
        if plans and self.weights is not None:
            rows, inputs = y, x
            if x.ndim != 2:  # noqa: PLR2004 - rows and features
                rows, inputs = y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
            for plan in plans:
                self.weights.add_(rows, inputs, plan)
                if self.biases is not None:
                    self.biases.add_(rows, plan)
        return y

    def _multiply(self, x: Tensor) -> Tensor:
        packed = self._packed
        return base_linear(x, self.weight, self.bias) if packed is None else packed(x)


class LoraLinear(nn.Module):
    """Takes the place of one nn.Linear of the model; weight and bias are views of the group's."""

    def __init__(self, group: LinearGroup, index: int, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.group = group
        self._index = index

    def forward(self, x: Tensor) -> Tensor:
        """Return base plus LoRA product of x [..., in]."""
        return self.group.first(x) if self._index == 0 else self.group.later(self._index, x)


def _stack(linears: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
    """Weights [sum of widths, in] and biases one after the other; one linear's are not copied."""
    weights = [linear.weight.data for linear in linears]
    biases = [None if linear.bias is None else linear.bias.data for linear in linears]
    if len(linears) == 1:
        return weights[0], biases[0]
    if all(bias is None for bias in biases):
        return torch.cat(weights), None
    filled = [
        weight.new_zeros(len(weight)) if bias is None else bias
        for weight, bias in zip(weights, biases, strict=True)
    ]
    return torch.cat(weights), torch.cat(filled)

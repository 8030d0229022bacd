"""Linears that read the same input, computed together.

q, k, v and gate, up are separate modules in most models. Siblings share one stacked weight here:
the member that is called first computes the base product and the LoRA product of all, the others
return their slice of it. So a layer reads x once, and one pair of LoRA launches serves the group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear as base_linear

from worker.engine.attention import LayoutRecorder
from worker.engine.invariance import in_blocks
from worker.engine.packed_weight import PackedWeight, can_pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kernels.sgmv import SgmvPlan, SlotWeights
    from worker.engine.model import Backbone

_PROBE_TOKENS = 7
_PROBE_LOGITS = 2  # fewer than the tokens, so that a linear's rows tell which of the two it sees


@dataclass(slots=True)
class StepState:
    """What the groups of a model share in one step."""

    number: int = 0
    plan: SgmvPlan | None = None  # None: no row of this step has an adapter
    invariant: bool = False  # products run in blocks of one shape


class LinearGroup:
    """One or more linears of equal input, with the slots of their adapters.

    `weights` is None as long as no adapter can touch the group.
    """

    def __init__(self, names: Sequence[str], linears: Sequence[Any], state: StepState) -> None:
        self.names = tuple(names)
        self.weights: SlotWeights | None = None
        self._state = state
        self.weight, self.bias = _stack(linears)
        self.in_features = self.weight.shape[1]
        self.widths = tuple(len(linear.weight) for linear in linears)
        self.members = tuple(
            LoraLinear(self, index, weight, bias)
            for index, (weight, bias) in enumerate(
                zip(
                    self.weight.split(self.widths),
                    self.bias.split(self.widths)
                    if self.bias is not None
                    else [None] * len(linears),
                    strict=True,
                )
            )
        )
        self._packed: PackedWeight | None = None
        self._input: Tensor | None = None
        self._number = -1
        self._outputs: list[Tensor | None] = []
        self._left = 0

    def output(self, index: int, x: Tensor) -> Tensor:
        """Return x [..., in] through member `index`: [..., width], a view of the group's output."""
        if len(self.widths) == 1:
            return self._compute(x)
        if x is not self._input or self._number != self._state.number:
            self._outputs = list(self._compute(x).split(self.widths, dim=-1))
            self._input, self._number, self._left = x, self._state.number, len(self.widths)
        output = self._outputs[index]
        if output is None:  # a member called twice with one input: nothing is kept for that
            return self._compute(x).split(self.widths, dim=-1)[index]
        self._outputs[index] = None
        self._left -= 1
        if self._left == 0:
            self._input = None  # so that activations don't outlive the layer
        return output

    def pack(self) -> None:
        """Trade the weight for one that is faster to multiply by, where there is such a thing.

        `weight`, and that of each member, is then a shape without contents; see `dense_weights`.
        """
        if self._packed is None and can_pack(self.weight):
            self._packed = PackedWeight(self.weight, self.bias)
            self.weight = self.weight.to("meta")
            for member in self.members:
                member.weight = nn.Parameter(member.weight.to("meta"), requires_grad=False)

    def dense_weights(self) -> tuple[Tensor, ...]:
        """Each member's weight [width, in]; of a packed group a copy that is laid out plainly."""
        weight = self.weight if self._packed is None else self._packed.dense()
        return weight.split(self.widths)

    def _compute(self, x: Tensor) -> Tensor:
        y = in_blocks(self._multiply, x) if self._state.invariant else self._multiply(x)
        plan = self._state.plan
        if plan is not None and self.weights is not None:
            self.weights.add_(y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1]), plan)
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
        self._group = group
        self._index = index

    def forward(self, x: Tensor) -> Tensor:
        """Return base plus LoRA product of x [..., in]."""
        return self._group.output(self._index, x)


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


@dataclass(frozen=True, slots=True)
class _Call:
    rows: int
    input: Tensor  # kept alive, so that its identity is not given to another tensor
    version: int


def find_groups(backbone: Backbone) -> tuple[tuple[str, ...], ...]:
    """Names of the linears that one forward pass feeds with the same tensor, group by group.

    Linears that are not called exactly once on all rows (mixtures of experts) are left out: rows
    of a step could not be matched to their adapters there. The output module sees only the rows
    that are sampled from and is a group of its own.
    """
    calls: dict[str, list[_Call]] = {}

    def record(name: str, x: Tensor) -> None:
        rows = x.numel() // x.shape[-1]
        calls.setdefault(name, []).append(_Call(rows, x, x._version))  # noqa: SLF001  # torch has no public name for it

    handles = [
        backbone.model.get_submodule(name).register_forward_pre_hook(
            lambda _module, args, name=name: record(name, args[0])
        )
        for name in backbone.linear_shapes
    ]
    ids = torch.arange(_PROBE_TOKENS, device=backbone.device)[None] % backbone.vocab_size
    try:
        with torch.no_grad():  # inference mode keeps no versions, which show changes in place
            backbone.model(
                input_ids=ids,
                use_cache=False,
                logits_to_keep=_PROBE_LOGITS,
                paged=LayoutRecorder(),
            )
    finally:
        for handle in handles:
            handle.remove()
    groups: dict[tuple[int, int], list[str]] = {}
    for name, made in calls.items():
        rows = _PROBE_LOGITS if name == backbone.output_module else _PROBE_TOKENS
        if len(made) == 1 and made[0].rows == rows:
            groups.setdefault((id(made[0].input), made[0].version), []).append(name)
    return tuple(tuple(names) for names in groups.values())

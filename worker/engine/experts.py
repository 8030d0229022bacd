"""A layer's experts with adapters: rows sorted by expert and slot, a product for each such pair.

transformers has several ways to run experts (`experts_implementation`). Steps without an adapter of
experts go the way that it has chosen. The others go ours, whatever that way is: adapters come in
between the two products, where none of the others lets anyone in.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import linear

from aril.kernels.sgmv import NO_ADAPTER, PackedExperts, make_plan
from aril.worker.engine.block_products import in_blocks
from aril.worker.engine.expert_modules import DOWN, up_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from aril.kernels.sgmv import PackedAdapter, SgmvPlan
    from aril.worker.adapters.weights import ExpertsModule
    from aril.worker.engine.groups import StepState

Prepared = dict[str, "list[PackedAdapter]"]
"""What an adapter brings for one layer's experts, by the parameter's path."""


class Routes(NamedTuple):
    """The pairs of row and expert of one step, in the order in which they are multiplied."""

    order: Tensor  # int64 [S]: which of the T · k pairs, row after row, comes where
    spans: list[tuple[int, int, int]]  # expert, first and past the last of its places
    plan: SgmvPlan | None  # over entries, see PackedExperts


class ExpertLayer:
    """Takes the place of the forward of one module of experts."""

    def __init__(
        self, path: str, module: Any, state: StepState, *, slots: int, backend: str
    ) -> None:
        self._module = module
        self._state = state
        self._slots = slots
        self._used: set[int] = set()  # slots whose adapter changes these experts
        self._up, self._down = f"{path}.{up_name(module)}", f"{path}.{DOWN}"
        weight = getattr(module, DOWN)
        self._weights = {
            name: PackedExperts(
                slots, len(weight), device=weight.device, dtype=weight.dtype, backend=backend
            )
            for name in (self._up, self._down)
        }
        module.__dict__.pop("forward", None)  # of layers that were here before
        self._own_forward = module.forward
        module.forward = self.forward

    def prepare(self, adapters: Mapping[str, ExpertsModule]) -> Prepared:
        """Take the memory for an adapter; `put` is what changes anything."""
        return {
            name: weights.pack(adapters[name].a, adapters[name].b, adapters[name].scaling)
            for name, weights in self._weights.items()
            if name in adapters
        }

    def put(self, slot: int, prepared: Prepared) -> None:
        """Put an adapter into a slot, or nothing, in place of what was there."""
        self._used.discard(slot)
        self._used.update([slot] if prepared else [])
        for name, weights in self._weights.items():
            weights.put(slot, prepared.get(name))

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Return [T, h]: each row's experts' answers, weighted and added.

        hidden_states [T, h], top_k_index int64 [T, k], top_k_weights [T, k]. Experts past the last
        count for nothing, as in transformers.
        """
        # A further plan is of mixtures, whose adapters change no experts.
        plan = next(iter(self._state.plans), None)
        if plan is not None and not any(
            segment.slot in self._used for segment in self._found(plan)
        ):
            plan = None
        if plan is None and not self._state.invariant:
            answer: Tensor = self._own_forward(hidden_states, top_k_index, top_k_weights)
            return answer
        return self._run(hidden_states, top_k_index, top_k_weights, plan)

    def _found(self, plan: SgmvPlan) -> tuple[Any, ...]:
        return plan.segments if self._used else ()

    def _run(self, x: Tensor, chosen: Tensor, shares: Tensor, plan: SgmvPlan | None) -> Tensor:
        module, width = self._module, chosen.shape[-1]
        routes = self._route(chosen, plan)
        rows = x[routes.order // width].to(getattr(module, DOWN).dtype)
        inner = self._multiply(self._up, rows, routes)
        inner = module._apply_gate(inner) if module.has_gate else module.act_fn(inner)  # noqa: SLF001  # transformers' own
        outer = self._multiply(self._down, inner.contiguous(), routes)
        if module.has_post_expert_norm:
            outer = module.post_expert_norm(outer)
        outer = outer * shares.reshape(-1)[routes.order, None]
        pairs = outer.new_zeros(chosen.numel(), outer.shape[-1])
        pairs[routes.order] = outer
        answers = pairs.view(len(x), width, -1)
        # One after the other: a sum over a dimension is ordered by how many rows there are.
        total = answers[:, 0].float()
        for place in range(1, width):
            total = total + answers[:, place]
        return total.to(x.dtype)

    def _route(self, chosen: Tensor, plan: SgmvPlan | None) -> Routes:
        experts = self._weights[self._down].experts
        pairs = chosen.reshape(-1).cpu()
        slots = pairs.new_full((len(pairs),), NO_ADAPTER)
        if plan is not None:
            slots = plan.row_slots.cpu().long().repeat_interleave(chosen.shape[-1])
        order = (pairs * (self._slots + 1) + slots + 1).argsort(stable=True)
        order = order[: int((pairs < experts).sum())]
        counts = pairs[order].bincount(minlength=experts)
        ends = counts.cumsum(0).tolist()
        spans = [
            (expert, end - count, end)
            for expert, (end, count) in enumerate(zip(ends, counts.tolist(), strict=True))
            if count
        ]
        entries = None
        if plan is not None:
            found, expert_of = slots[order], pairs[order]
            numbers = torch.where(found == NO_ADAPTER, NO_ADAPTER, found * experts + expert_of)
            scales = plan.row_scales
            if scales is not None:
                scales = scales.cpu().repeat_interleave(chosen.shape[-1])[order]
            entries = make_plan(
                numbers.int(),
                slots=self._slots * experts,
                row_scales=scales,
                mode=plan.mode,
                device=chosen.device,
            )
        return Routes(order.to(chosen.device), spans, entries)

    def _multiply(self, name: str, x: Tensor, routes: Routes) -> Tensor:
        """Return x [S, in] through one weight of each row's expert, and its adapter's: [S, out]."""
        module, leaf = self._module, name.rpartition(".")[2]
        weights = getattr(module, leaf)
        biases = getattr(module, f"{leaf}_bias") if module.has_bias else None
        width = weights.shape[2 if module.is_transposed else 1]
        y = x.new_empty(len(x), width)
        for expert, first, last in routes.spans:
            weight = weights[expert].T if module.is_transposed else weights[expert]
            bias = None if biases is None else biases[expert]
            rows = x[first:last]
            y[first:last] = (
                in_blocks(partial(linear, weight=weight, bias=bias), rows)
                if self._state.invariant
                else linear(rows, weight, bias)
            )
        if routes.plan is not None:
            self._weights[name].add_(y, x, routes.plan)
        return y

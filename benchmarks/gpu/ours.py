"""Our operator as a service has it: in a captured graph, and through the slots that it loads into.

`providers.Sgmv` is the operator alone, on operands that fit the case.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from aril.kernels.sgmv import GroupShape, LoraPair, make_plan, make_slot_weights
from benchmarks.gpu.providers import Sgmv

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from aril.kernels.sgmv import SgmvPlan
    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider

# A graph is captured once for whatever adapters come: a grid for the worst case of that many.
SERVICE_SLOTS = 64


class StaticSgmv(Sgmv):
    """The operator as a CUDA graph of a service replays it.

    Its table has room for the worst case of `SERVICE_SLOTS` resident adapters; once a step it is
    updated in place.
    """

    def __init__(self) -> None:
        super().__init__("fast")
        self.name = "Aril fast, static plan"

    def plan(self, problem: Problem) -> SgmvPlan:
        """Plan for as many slots as a service has, from the rows of this step."""
        return make_plan(
            problem.row_slots,
            slots=max(SERVICE_SLOTS, problem.slots),
            device=problem.device,
            static=True,
        )

    def replan(self, problem: Problem, plan: SgmvPlan) -> None:
        """Update it in place."""
        plan.update_(problem.row_slots)

    def bind(self, problem: Problem, plan: SgmvPlan) -> Callable[[], None]:
        """Stack the slices as ever, with the empty slots behind the used ones."""
        empty = plan.slots - problem.slots

        def padded(part: Tensor) -> Tensor:
            return torch.cat([part, part.new_zeros(empty, *part.shape[1:])])

        roomy = replace(
            problem,
            a=tuple(padded(part) for part in problem.a),
            b=tuple(padded(part) for part in problem.b),
            ranks=(*problem.ranks, *[0] * empty),
            scales=(*problem.scales, *[0.0] * empty),
            gains=None if problem.gains is None else padded(problem.gains),
        )
        return super().bind(roomy, plan)


class AsServed(Sgmv):
    """The operator as the engine calls it: through its slots, gains only where there are any."""

    def __init__(self, name: str = "Aril, as served", backend: str = "triton") -> None:
        super().__init__("fast")
        self.name = name
        self._backend = backend

    def bind(self, problem: Problem, plan: SgmvPlan) -> Callable[[], None]:
        """Load each adapter into its slot."""
        shape = GroupShape(problem.x.shape[1], problem.widths, problem.max_rank)
        weights = make_slot_weights(
            shape,
            problem.slots,
            device=problem.device,
            dtype=problem.x.dtype,
            backend=self._backend,
        )
        for slot, rank in enumerate(problem.ranks):
            gains: tuple[Tensor | None, ...] = (None,) * len(problem.widths)
            if problem.gains is not None and slot in problem.case.dora:
                gains = problem.gains[slot].split(problem.widths)
            weights.load(
                slot,
                [
                    LoraPair(a[slot, :rank], b[slot, :, :rank], problem.scales[slot], gain)
                    for a, b, gain in zip(problem.a, problem.b, gains, strict=True)
                ],
            )
        return partial(weights.add_, problem.y, problem.x, plan)


def served_providers() -> list[Provider]:
    """Both of them."""
    return [StaticSgmv(), AsServed()]

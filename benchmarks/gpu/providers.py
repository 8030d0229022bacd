"""Ways to add LoRA products to y: ours, and the four that torch alone can do.

A provider does its work in the three moments of a server: `plan` once a step, `bind` once when
weights are loaded (it may lay them out as it likes), the bound call at every layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from aril.kernels.sgmv import Gains, make_plan, sgmv_

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from aril.kernels.sgmv import SgmvPlan
    from aril.kernels.sgmv.tiles import Tiles
    from benchmarks.gpu.problem import Problem


OURS, INVARIANT = "Aril fast", "Aril invariant"  # the operator in its two modes


class Provider(ABC):
    """One way of doing it."""

    name: str
    takes_gains = False
    # Its answer is another one unless the case is Identical: it is a bound, not an operator.
    bound_only = False

    def refuses(self, problem: Problem) -> str | None:  # noqa: ARG002 - most take every problem
        """Say why this problem is not for it; None when it is."""
        return None

    @abstractmethod
    def plan(self, problem: Problem) -> Any:
        """Build what a step needs to know of its rows."""

    def replan(self, problem: Problem, plan: Any) -> None:  # noqa: ARG002 - most plan anew
        """Do what is left for each step where there is a plan already."""
        self.plan(problem)

    @abstractmethod
    def bind(self, problem: Problem, plan: Any) -> Callable[[], None]:
        """Lay the weights out; the returned call adds to `problem.y` in place."""

    def forget(self) -> None:  # noqa: B027 - most keep nothing
        """Drop what is kept by address: the next case may get the same addresses."""


def refusal(provider: Provider, problem: Problem) -> str | None:
    """Say why a problem is not for a provider: gains are for those who say that they take them."""
    if problem.case.dora and not provider.takes_gains:
        return "has no gains (DoRA)"
    return provider.refuses(problem)


class Sgmv(Provider):
    """`aril.kernels.sgmv` on Triton in one of its modes, also with given tiles."""

    takes_gains = True

    def __init__(self, mode: str, tiles: Tiles | None = None) -> None:
        self.name = f"Aril {mode}"
        self._mode = mode
        self._tiles = tiles

    def plan(self, problem: Problem) -> SgmvPlan:
        """Plan, and build the table that the kernels will ask for."""
        return make_plan(
            problem.row_slots, slots=problem.slots, mode=self._mode, device=problem.device
        )

    def bind(self, problem: Problem, plan: SgmvPlan) -> Callable[[], None]:
        """Stack the slices of A at the highest rank."""
        a = torch.cat(problem.a, 1)
        ranks, scales = problem.ranks_and_scales
        gains = None
        if problem.gains is not None:
            present = torch.zeros_like(ranks)
            present[list(problem.case.dora)] = 1
            gains = Gains(problem.gains, present)
        return partial(
            sgmv_, problem.y, problem.x, a, problem.b, ranks, scales, plan,
            gains=gains, backend="triton", tiles=self._tiles,
        )  # fmt: skip


class Loop(Provider):
    """Two matrix products for each adapter and slice."""

    name = "per-adapter loop"

    def plan(self, problem: Problem) -> list[tuple[int, Tensor]]:
        """List the rows of each adapter."""
        slots = sorted({*problem.row_slots.tolist()} - {-1})
        return [
            (slot, (problem.row_slots == slot).nonzero().flatten().to(problem.device))
            for slot in slots
        ]

    def bind(self, problem: Problem, plan: Sequence[tuple[int, Tensor]]) -> Callable[[], None]:
        """Take each adapter at its own rank, all slices of A as one matrix."""
        columns = problem.y.split(problem.widths, 1)
        work = [(rows, problem.ranks[slot], *_of_slot(problem, slot)) for slot, rows in plan]

        def call() -> None:
            for rows, rank, a, b in work:
                shrunk = torch.mm(problem.x.index_select(0, rows), a)
                for y, part, v in zip(columns, b, shrunk.split(rank, 1), strict=True):
                    y.index_add_(0, rows, torch.mm(v, part))

        return call


MOST_COPIES = 1e9


class _Bmm(Provider):
    """What the two batched products share: slices of one call, one after the other."""

    def refuses(self, problem: Problem) -> str | None:
        """Refuse rows without adapter, and copies of more weights than make sense."""
        if (problem.row_slots < 0).any():
            return "has no way to leave rows out"
        weights = problem.max_rank * (problem.x.shape[1] + max(problem.widths))
        if weights * len(problem.x) * problem.x.element_size() > MOST_COPIES:
            return "would copy over 1 GB of weights"
        return None

    def plan(self, problem: Problem) -> Tensor:
        """Put the slot of each row on the device."""
        return problem.row_slots.long().to(problem.device)


class GatherBmm(_Bmm):
    """Copy each row's weights side by side, then a batched product: Punica's `gbmm`."""

    name = "Gather-BMM"

    def bind(self, problem: Problem, plan: Tensor) -> Callable[[], None]:
        """Lay both weights out so that the gathered copies are what bmm reads best."""
        columns = problem.y.split(problem.widths, 1)
        a = [part.transpose(1, 2).contiguous() for part in problem.a]
        b = [_scaled(problem, part).transpose(1, 2).contiguous() for part in problem.b]

        def call() -> None:
            for y, a_all, b_all in zip(columns, a, b, strict=True):
                shrunk = torch.bmm(problem.x[:, None], a_all.index_select(0, plan))
                y.add_(torch.bmm(shrunk, b_all.index_select(0, plan))[:, 0])

        return call


class GatheredBmm(_Bmm):
    """The batched product alone, on weights gathered beforehand: not an operator, a lower bound."""

    name = "BMM, gathered before"

    def bind(self, problem: Problem, plan: Tensor) -> Callable[[], None]:
        """Gather here, where no clock runs: this is what Punica's figure 8 shows as BMM."""
        columns = problem.y.split(problem.widths, 1)
        a = [part.transpose(1, 2)[plan].contiguous() for part in problem.a]
        b = [_scaled(problem, part).transpose(1, 2)[plan].contiguous() for part in problem.b]

        def call() -> None:
            for y, a_rows, b_rows in zip(columns, a, b, strict=True):
                y.add_(torch.bmm(torch.bmm(problem.x[:, None], a_rows), b_rows)[:, 0])

        return call


class OneAdapter(Provider):
    """Two plain matrix products with one adapter for all rows: the least work there can be."""

    name = "torch.mm, one adapter"
    bound_only = True

    def refuses(self, problem: Problem) -> str | None:
        """Refuse where some rows have no adapter."""
        return "has no way to leave rows out" if (problem.row_slots < 0).any() else None

    def plan(self, problem: Problem) -> None:
        """Need nothing."""

    def bind(self, problem: Problem, plan: None) -> Callable[[], None]:  # noqa: ARG002 - none made
        """Take slot 0 for every row."""
        columns = problem.y.split(problem.widths, 1)
        rank = problem.ranks[0]
        a, b = _of_slot(problem, 0)

        def call() -> None:
            shrunk = torch.mm(problem.x, a).split(rank, 1)
            for y, part, v in zip(columns, b, shrunk, strict=True):
                y.addmm_(v, part)

        return call


# These say how fast it could be, not who is faster: they don't do the job.
BOUNDS = frozenset({GatheredBmm.name, OneAdapter.name})


def _of_slot(problem: Problem, slot: int) -> tuple[Tensor, list[Tensor]]:
    """Lay out one adapter at its own rank: A of all slices as one, B of each with the scale."""
    rank = problem.ranks[slot]
    a = torch.cat([part[slot, :rank] for part in problem.a]).T.contiguous()
    b = [(part[slot, :, :rank] * problem.scales[slot]).T.contiguous() for part in problem.b]
    return a, b


def _scaled(problem: Problem, b: Tensor) -> Tensor:
    scales = torch.tensor(problem.scales, device=b.device)[:, None, None]
    return (b * scales).to(b.dtype)


def torch_providers() -> list[Provider]:
    """All that need nothing but torch and our kernels."""
    return [
        Sgmv("fast"),
        Sgmv("invariant"),
        Loop(),
        GatherBmm(),
        GatheredBmm(),
        OneAdapter(),
    ]

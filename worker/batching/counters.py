"""Virtual token counters: the work that each tenant was given, over its weight.

The waiting tenant with the least is served next. A job is charged what it is expected to cost as it
is chosen, more as soon as it has cost more, and the rest is given back as it ends: what counts is
the work done, not the work asked for. Expected is what the tenant's last answers were long. A
tenant that was away starts level with the others: idling saves up no credit (Sheng et al.,
"Fairness in Serving Large Language Models", OSDI 2024; there too, by lengths that are predicted).
Pure.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aril.worker.job import UNTOLD_ANSWER

if TYPE_CHECKING:
    from collections.abc import Callable

NEWEST: Final = 0.2  # of what is expected of a tenant's next answer is its newest's length
FEW: Final = 32  # counters more cost nothing
AHEAD: Final = 4_096  # tenants that do not wait, of whom it is known what they were given


@dataclass(frozen=True, slots=True)
class Prices:
    """What work costs, in tokens of a prompt."""

    prompt: float = 1.0  # a token
    answer: float = 2.0  # a token: it takes a step of its own
    load: float = 100.0  # an adapter that was read from the store


class Counters:
    """Counters of tenants, in prices over weights."""

    def __init__(
        self, weight: Callable[[str], float] = lambda _: 1.0, prices: Prices | None = None
    ) -> None:
        """Prepare; `weight` is asked for a tenant's, above 0."""
        self.prices = prices or Prices()
        self._weight = weight
        self._served: dict[str, float] = {}
        self._answers: dict[str, float] = {}  # tokens, a mean
        self._floor = 0.0
        self._enough = 2 * FEW  # of them, until it is time to forget some

    @property
    def kept(self) -> int:
        """How many there are."""
        return len(self._served)

    def __getitem__(self, tenant: str) -> float:
        """Return a tenant's counter."""
        return self._served.get(tenant, self._floor)

    def expect(self, tenant: str, prompt_tokens: int, most: int) -> float:
        """Return what a job is expected to cost whose answer has `most` tokens at most."""
        answer = min(self._answers.get(tenant, UNTOLD_ANSWER), most)
        return self.prices.prompt * prompt_tokens + self.prices.answer * answer

    def charge(self, tenant: str, cost: float, before: float = 0.0) -> float:
        """Count a job's work in the place of what was counted `before`; return what is now."""
        counted = cost / self._weight(tenant)
        self._served[tenant] = self[tenant] + counted - before
        return counted

    def answered(self, tenant: str, tokens: int) -> None:
        """Learn how long an answer was that is complete."""
        before = self._answers.get(tenant)
        self._answers[tenant] = tokens if before is None else before + NEWEST * (tokens - before)

    def arrive(self, tenant: str) -> None:
        """Let a tenant begin to wait, level with the others."""
        self._served[tenant] = max(self[tenant], self._floor)

    def turn(self, served: float) -> None:
        """Note at what counter a tenant has its turn: who comes later has no less."""
        self._floor = max(self._floor, served)

    @property
    def many(self) -> bool:
        """Whether it is time to forget some: there are twice as many as were kept last."""
        return len(self._served) > self._enough

    def forget(self, keep: Callable[[str], bool]) -> None:
        """Drop what says nothing: a counter that is no more than what a fresh one would be.

        And, of tenants that are not to be kept, all but the highest: who was given a little more
        than others loses nothing but that.
        """
        ahead = (
            tenant
            for tenant, served in self._served.items()
            if served > self._floor and not keep(tenant)
        )
        idle = {*heapq.nlargest(AHEAD, ahead, key=self._served.__getitem__)}
        self._served = {
            tenant: served
            for tenant, served in self._served.items()
            if tenant in idle or keep(tenant)
        }
        self._answers = {
            tenant: mean for tenant, mean in self._answers.items() if tenant in self._served
        }
        self._enough = 2 * (len(self._served) + FEW)

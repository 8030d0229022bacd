"""The time window: where jobs wait a moment so that they can share a step.

A plain object without a clock of its own. Three rules, each a property test:

* an idle engine waits at most ``seconds`` from the arrival of the first waiting job, less when
  the batch is full;
* a busy engine is never waited for: jobs join it at its next step, as far as there is room;
* nothing is lost or doubled, and the jobs of one tenant leave in the order they came, of those
  that come first and of the others.

Among tenants the one with the smallest share of the engine is next (`aril.worker.batching.shares`).
Before them all goes what comes `first`: streams that stand still.
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections import defaultdict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aril.worker.batching.shares import Shares, Use

ItemT = TypeVar("ItemT")


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one batch may hold."""

    rows: int
    tokens: int  # prompt tokens, together
    adapters: int  # distinct adapters; the backbone is none


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[ItemT]):
    item: ItemT
    use: Use
    since: float
    first: bool

    @property
    def place(self) -> tuple[bool, float]:
        """What it is sorted by."""
        return not self.first, self.since


class Window(Generic[ItemT]):
    """Gathers jobs into batches. Times are seconds of any monotonic clock."""

    def __init__(self, *, seconds: float, limits: BatchLimits) -> None:
        if seconds < 0 or min(limits.rows, limits.tokens, limits.adapters) < 1:
            raise ValueError(f"a window needs time >= 0 and limits >= 1: {seconds}, {limits}")
        self._seconds = seconds
        self._limits = limits
        self._waiting: list[_Waiting[ItemT]] = []  # by their places

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[ItemT]:
        return (each.item for each in self._waiting)

    def first_of_each(self) -> dict[str, tuple[ItemT, Use]]:
        """Return the next job of each tenant and what it takes, by tenant."""
        firsts: dict[str, tuple[ItemT, Use]] = {}
        for each in self._waiting:
            firsts.setdefault(each.use.tenant, (each.item, each.use))
        return firsts

    def offer(self, item: ItemT, use: Use, *, since: float, first: bool = False) -> None:
        """Let a job wait for company; one that was here before keeps its place by `since`."""
        insort(self._waiting, _Waiting(item, use, since, first), key=lambda each: each.place)

    def discard(self, item: ItemT) -> bool:
        """Forget a job that was cancelled; False if it does not wait here."""
        before = len(self._waiting)
        self._waiting = [each for each in self._waiting if each.item is not item]
        return len(self._waiting) < before

    def closes_at(self) -> float | None:
        """When an idle engine gets the waiting batch at the latest; None when nothing waits."""
        if not self._waiting:
            return None
        oldest = min(each.since for each in self._waiting)
        return oldest if self._full() else oldest + self._seconds

    def take(
        self,
        *,
        now: float,
        busy: bool,
        rows: int,
        shares: Shares,
        may: Callable[[Use], bool] = lambda _: True,
    ) -> list[ItemT]:
        """Remove and return the jobs that enter the engine now; `shares` learns of them.

        ``rows`` is how many the engine has room for. The first job always fits: one that is larger
        than the limits goes alone. A job that `may` not run now holds up its own tenant.
        """
        closes_at = self.closes_at()
        if closes_at is None or rows < 1 or (not busy and now < closes_at):
            return []
        taken = self._fair(min(rows, self._limits.rows), shares, may)
        gone = {id(each) for each in taken}
        self._waiting = [each for each in self._waiting if id(each) not in gone]
        return [each.item for each in taken]

    def _full(self) -> bool:
        waiting, limits = self._waiting, self._limits
        adapters = frozenset[str]().union(*(each.use.adapters for each in waiting))
        return (
            len(waiting) >= limits.rows
            or sum(each.use.tokens for each in waiting) >= limits.tokens
            or len(adapters) > limits.adapters
        )

    def _fair(self, rows: int, shares: Shares, may: Callable[[Use], bool]) -> list[_Waiting[ItemT]]:
        """Choose a batch: what comes first, then the tenant with the smallest share, and so on."""
        queues: dict[str, deque[_Waiting[ItemT]]] = defaultdict(deque)
        for each in self._waiting:
            queues[each.use.tenant].append(each)

        def turn(tenant: str) -> tuple[bool, float, float, str]:
            each = queues[tenant][0]
            return not each.first, shares.of(tenant), each.since, tenant

        turns = [*map(turn, queues)]
        heapq.heapify(turns)
        taken: list[_Waiting[ItemT]] = []
        adapters: frozenset[str] = frozenset()
        tokens = 0
        while turns and len(taken) < rows:
            tenant = heapq.heappop(turns)[-1]
            each = queues[tenant].popleft()
            joined = adapters | each.use.adapters
            fits = (
                tokens + each.use.tokens <= self._limits.tokens
                and len(joined) <= self._limits.adapters
            )
            if not may(each.use) or not (fits or not taken):
                continue  # and so do its tenant's others
            taken.append(each)
            shares.add(each.use)
            adapters = joined
            tokens += each.use.tokens
            if queues[tenant]:
                heapq.heappush(turns, turn(tenant))
        return taken

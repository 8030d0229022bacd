"""The time window: where jobs wait a moment so that they can share a step.

A plain object without a clock of its own. Three rules, each a property test:

* an idle engine waits at most ``seconds`` from the arrival of the first waiting job, less when
  the batch is full;
* a busy engine is never waited for: jobs join it at its next step, as far as there is room;
* nothing is lost or doubled, and the jobs of one tenant leave in the order they came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection

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
    tenant: str
    adapters: frozenset[str]
    tokens: int
    since: float


class Window(Generic[ItemT]):
    """Gathers jobs into batches. Times are seconds of any monotonic clock."""

    def __init__(self, *, seconds: float, limits: BatchLimits) -> None:
        if seconds < 0 or min(limits.rows, limits.tokens, limits.adapters) < 1:
            raise ValueError(f"a window needs time >= 0 and limits >= 1: {seconds}, {limits}")
        self._seconds = seconds
        self._limits = limits
        self._waiting: list[_Waiting[ItemT]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def offer(
        self, item: ItemT, *, tenant: str, adapters: Collection[str], tokens: int, now: float
    ) -> None:
        """Let a job wait for company."""
        self._waiting.append(_Waiting(item, tenant, frozenset(adapters), tokens, now))

    def discard(self, item: ItemT) -> bool:
        """Forget a job that was cancelled; False if it does not wait here."""
        before = len(self._waiting)
        self._waiting = [each for each in self._waiting if each.item is not item]
        return len(self._waiting) < before

    def closes_at(self) -> float | None:
        """When an idle engine gets the waiting batch at the latest; None when nothing waits."""
        if not self._waiting:
            return None
        first = min(each.since for each in self._waiting)
        return first if self._full() else first + self._seconds

    def take(self, *, now: float, busy: bool, rows: int) -> list[ItemT]:
        """Remove and return the jobs that enter the engine now, in order of arrival.

        ``rows`` is how many the engine has room for. The longest-waiting job always fits: one
        that is larger than the limits goes alone, and none can be passed over for ever.
        """
        closes_at = self.closes_at()
        if closes_at is None or rows < 1 or (not busy and now < closes_at):
            return []
        taken, left = self._split(min(rows, self._limits.rows))
        self._waiting = left
        return [each.item for each in taken]

    def _full(self) -> bool:
        waiting, limits = self._waiting, self._limits
        adapters = frozenset[str]().union(*(each.adapters for each in waiting))
        return (
            len(waiting) >= limits.rows
            or sum(each.tokens for each in waiting) >= limits.tokens
            or len(adapters) > limits.adapters
        )

    def _split(self, rows: int) -> tuple[list[_Waiting[ItemT]], list[_Waiting[ItemT]]]:
        taken: list[_Waiting[ItemT]] = []
        left: list[_Waiting[ItemT]] = []
        adapters: frozenset[str] = frozenset()
        held_back: set[str] = set()
        tokens = 0
        for each in self._waiting:
            joined = adapters | each.adapters
            fits = (
                len(taken) < rows
                and tokens + each.tokens <= self._limits.tokens
                and len(joined) <= self._limits.adapters
                and each.tenant not in held_back
            )
            if fits or not taken:
                taken.append(each)
                adapters = joined
                tokens += each.tokens
            else:
                left.append(each)
                held_back.add(each.tenant)
        return taken, left

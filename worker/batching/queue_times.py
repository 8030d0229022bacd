"""How long a tenant's jobs wait: from how quickly they have had their turns of late. Pure.

What is told is how long it takes until so many jobs before one have had theirs, if that goes on as
it does. It is told only where it is known: a tenant's jobs have had turns one after the other while
others of it waited.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

NEWEST: Final = 0.1  # of the time between two turns is the newest one's
# The same, of a mean that a pause hardly moves, nor rows that fall free together: what is told is
# the smaller one.
NEWEST_OF_MANY: Final = 1 / 512
ENOUGH: Final = 8  # turns that have to be seen before anything is told
TENANTS: Final = 4_096  # of whom it is known, those who had turns last


@dataclass(slots=True)
class _Pace:
    at: float  # of the last turn
    seconds: float = 0.0  # between two, a mean of late
    of_many: float = 0.0  # the same, of many
    seen: int = 0


class QueueTimes:
    """The pace of each tenant's turns. Times are seconds of any monotonic clock."""

    def __init__(self) -> None:
        self._paces: OrderedDict[str, _Pace] = OrderedDict()

    def turn(self, tenant: str, now: float, *, more: bool) -> None:
        """Note that a job of a tenant has its turn; `more` of it wait still."""
        pace = self._paces.get(tenant)
        if pace is not None:
            gap = now - pace.at
            pace.at = now
            pace.seen += 1
            pace.seconds += max(NEWEST, 1 / pace.seen) * (gap - pace.seconds)
            pace.of_many += max(NEWEST_OF_MANY, 1 / pace.seen) * (gap - pace.of_many)
            self._paces.move_to_end(tenant)
        elif more:
            self._paces[tenant] = _Pace(now)
            if len(self._paces) > TENANTS:
                self._paces.popitem(last=False)
        if not more:  # the next turn comes with the next job, and says nothing of the pace
            self._paces.pop(tenant, None)

    def until(self, tenant: str, before: int) -> float | None:
        """Return the seconds until so many jobs of a tenant have had turns; None: not known."""
        pace = self._paces.get(tenant)
        if pace is None or pace.seen < ENOUGH:
            return None
        return before * min(pace.seconds, pace.of_many)

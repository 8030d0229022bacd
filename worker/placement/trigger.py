"""When a worker asks its group for a rebalance. Pure.

Between rebalances nobody knows the others' loads: each worker judges by its own and by what the
leader told it with its last assignment. It asks for two things:

    OPEN    it is too full: at once, a moment's burst excepted
    CLOSE   its load fell, and what it has fits elsewhere: after that was so for a whole ``seconds``

For CLOSE the emptiest worker takes the others' loads to have gone the way of its own, any other
takes them to be as they were told, until that is long ago. What did not fit then and did not fall
is not asked about again. For OPEN no loads that were told count: others may have emptied since.

Every rebalance interrupts the streams of what moves, so a group has no second one on anybody's wish
for ``seconds``. Who asked in vain waits twice as long the next time, up to MAX_PATIENCE times.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

from aril.worker.placement.plan import CLOSE_TO, OPEN_ABOVE

if TYPE_CHECKING:
    from collections.abc import Collection

    from aril.worker.placement.load_report import Notice

HOLD_SECONDS: Final = 5.0
MAX_PATIENCE: Final = 8
FELL_TO: Final = 0.8  # of the load of then; above it a wish to close is the last plan's again
STALE: Final = 5  # times ``seconds``: older loads of others say nothing any more
LIGHT: Final = 0.125  # rows; less is nothing in a report, and moving it no relief


class Why(enum.Enum):
    """What a rebalance is wished for."""

    OPEN = "open"
    CLOSE = "close"


class Trigger:
    """One worker's wish. Times are seconds of any one clock."""

    def __init__(self, *, rows: int, seconds: float) -> None:
        self._rows = rows
        self._seconds = seconds
        self._notice: Notice | None = None
        self._told_at = 0.0
        self._load_then = 0.0
        self._wish: Why | None = None
        self._since = 0.0
        self._asked_at: float | None = None  # by whomever
        self._asks = False  # a rebalance that we asked for is on its way
        self._patience = 1

    def told(self, notice: Notice | None, now: float, *, changed: bool) -> None:
        """Take in a new assignment's notice; ``changed``: it is not the partitions of before."""
        if self._asks:
            self._patience = 1 if changed else min(2 * self._patience, MAX_PATIENCE)
        if self._asks or (notice is not None and notice.asked):
            self._asked_at = now
        self._asks = False
        self._notice, self._told_at = notice, now
        self._load_then = sum(notice.loads) if notice is not None else 0.0
        self._wish = None

    def ask(self, loads: Collection[float], now: float) -> Why | None:
        """Return why to ask for a rebalance now, or None; ``loads``: rows of our partitions."""
        wish = self._wanted(loads, now)
        if wish is not self._wish:
            self._wish, self._since = wish, now
        hold = min(HOLD_SECONDS, self._seconds) if wish is Why.OPEN else self._seconds
        pause = self._seconds * self._patience
        quiet = self._asked_at is None or now - self._asked_at >= pause
        if wish is None or self._asks or not quiet or now - self._since < hold:
            return None
        self._asks = True
        self._asked_at = now
        return wish

    def _wanted(self, loads: Collection[float], now: float) -> Why | None:
        notice, load = self._notice, sum(loads)
        if notice is None or not loads:  # it stands by, or has no leader that it understands
            return None
        if load > OPEN_ABOVE * self._rows:
            alone = notice.open + notice.standby < 2  # noqa: PLR2004 - us and somebody
            heavy = sum(each >= LIGHT for each in loads)  # a single one is as much elsewhere
            return Why.OPEN if heavy > 1 and not alone else None
        rows = notice.rows - self._rows  # of the other open workers
        if rows > 0 and self._load_then and load <= FELL_TO * self._load_then:
            others = max(0.0, notice.load - self._load_then)
            if notice.closes or now - self._told_at >= STALE * self._seconds:
                others *= load / self._load_then
            return Why.CLOSE if load + others <= CLOSE_TO * rows else None
        return None

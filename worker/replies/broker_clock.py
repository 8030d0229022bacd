"""What time it is at the brokers. Pure; times are milliseconds since the epoch.

Records carry the brokers' time, deadlines count from it, and a worker's own clock may be minutes
off. Each acknowledged append says what the difference is: its log-append time lies between our
sending and our hearing of it. The estimate moves no further than the newest such span demands, so a
clock that is right is left alone.

Before the first append only this is known: no record that was read is from the future. So jobs are
rather begun late than ended early; the first append is never far.
"""

from __future__ import annotations

from typing import Final

from aril.worker.observe.logs import get_logger

log = get_logger(__name__)

WARN_MS: Final = 5_000.0


class BrokerClock:
    """The brokers' clock, as far as appends and records tell it."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None  # of ours; None: nothing was appended yet
        self._least_ms = 0.0  # it is ahead by this at least, by what was read
        self._any_read = False
        self._warned = False

    @property
    def skew_seconds(self) -> float:
        """How far our clock is ahead of theirs; 0 before it is known."""
        return 0.0 if self._ahead_ms is None else -self._ahead_ms / 1_000

    def now_ms(self, ours_ms: float) -> float:
        """Return their time when ours is `ours_ms`."""
        return ours_ms + (self._least_ms if self._ahead_ms is None else self._ahead_ms)

    def saw(self, timestamp_ms: float, ours_ms: float) -> None:
        """Note the log-append time of a record that was read just now."""
        least = timestamp_ms - ours_ms
        self._least_ms = max(self._least_ms, least) if self._any_read else least
        self._any_read = True

    def appended(self, timestamp_ms: float, *, sent_ms: float, heard_ms: float) -> None:
        """Note the log-append time of a record of ours, sent and acknowledged at these times."""
        least, most = timestamp_ms - heard_ms, timestamp_ms - sent_ms
        self._ahead_ms = min(max(self._ahead_ms or 0.0, least), most)
        if abs(self._ahead_ms) >= WARN_MS and not self._warned:
            self._warned = True
            log.warning("clock_differs_from_the_brokers", seconds=round(self.skew_seconds, 1))

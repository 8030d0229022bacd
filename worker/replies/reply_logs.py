"""Which reply logs do not answer, and when to try one again. Pure: times are passed in, seconds.

A partition of a reply topic may be gone for a while, with its broker, and all others be there. Each
append to it takes as long as a request may, so what would write there waits until one job has found
it well again: a circuit breaker for each log.

    failed    the log is down: nobody may use it but a probe, now and then, more and more rarely
    worked    it is up again
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from aril.worker.job import Partition

FIRST_DELAY_SECONDS: Final = 0.25
LAST_DELAY_SECONDS: Final = 15.0


@dataclass(slots=True)
class _Down:
    delay: float
    probe_at: float


class ReplyLogs:
    """The reply logs of a worker that are down."""

    def __init__(self) -> None:
        self._down: dict[Partition, _Down] = {}

    def __len__(self) -> int:
        return len(self._down)

    def is_down(self, log: Partition) -> bool:
        """Tell whether a log did not answer when it was last tried."""
        return log in self._down

    def failed(self, log: Partition, now: float) -> None:
        """Note that an append or a read failed, or was not answered."""
        known = self._down.get(log)
        delay = FIRST_DELAY_SECONDS if known is None else min(2 * known.delay, LAST_DELAY_SECONDS)
        self._down[log] = _Down(delay, now + delay)

    def worked(self, log: Partition) -> bool:
        """Note that one succeeded; True if the log had been down."""
        return self._down.pop(log, None) is not None

    def forget(self, log: Partition) -> None:
        """Think no more of a log that nobody waits for."""
        self._down.pop(log, None)

    def to_probe(self, now: float) -> list[Partition]:
        """Return the logs that are to be tried by one job now; the next is due a delay later."""
        due = [log for log, down in self._down.items() if down.probe_at <= now]
        for log in due:
            self._down[log].probe_at = now + self._down[log].delay
        return due

"""Jobs that wait for their reply log, so that nobody else waits for it.

What would be written to a log that is down hangs as long as a request may. So its jobs stand aside,
hold no place that others could use, and one at a time tries the log again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.stages import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.job import Entry, Partition, Record
    from aril.worker.observe.metrics import Metrics
    from aril.worker.replies.pending_bytes import PendingBytes
    from aril.worker.replies.reply_logs import ReplyLogs


class Parking:
    """The parked jobs of a worker, by their reply logs."""

    def __init__(
        self,
        logs: ReplyLogs,
        pending: PendingBytes,
        metrics: Metrics,
        happened: Callable[[Entry, Event], None],
        *,
        try_other: Callable[[Partition], bool],
        sound: Callable[[Entry], None],
    ) -> None:
        """Prepare.

        `try_other` has something else than a job try a log, where something waits for it. `sound`
        tries the log of a job that cannot do so itself, since the engine would stand still for it.
        """
        self._sound = sound
        self._logs = logs
        self._try_other = try_other
        self._pending = pending
        self._metrics = metrics
        self._happened = happened
        self._parked: dict[Partition, dict[Entry, Record]] = {}  # records as they were counted
        self._probes: set[Entry] = set()

    @property
    def logs_down(self) -> int:
        """How many reply logs do not answer."""
        return len(self._logs)

    def reachable(self, entry: Entry) -> bool:
        """Tell whether a job may use its reply log: it is not down, or this job is to try it."""
        return entry in self._probes or not self._logs.is_down(entry.reply_log)

    def park(self, entry: Entry) -> None:
        """Let a job wait for its log. What it holds in memory is counted meanwhile."""
        self._probes.discard(entry)
        self._parked.setdefault(entry.reply_log, {})[entry] = entry.record
        self._pending.add(entry.record)

    def unpark(self, entry: Entry) -> None:
        """Let it wait no longer, if it does."""
        self._probes.discard(entry)
        waiting = self._parked.get(entry.reply_log, {})
        if entry in waiting:
            self._pending.remove(waiting.pop(entry))
            if not waiting:
                del self._parked[entry.reply_log]

    def tick(self, now: float) -> None:
        """Let go those whose log is up again, and one of each that is due to be tried."""
        for log in self._logs.to_probe(now):
            if self._try_other(log):
                continue
            if log not in self._parked:
                self._logs.forget(log)  # the next append to it tells how it is
                continue
            probe = next((each for each in self._parked[log] if not each.alone), None)
            if probe is None:
                self._sound(next(iter(self._parked[log])))
            else:
                self._let_go(probe, probe=True)
        for log in [log for log in self._parked if not self._logs.is_down(log)]:
            for entry in list(self._parked[log]):
                self._let_go(entry)
        self._metrics.reply_logs_down.set(len(self._logs))
        self._metrics.parked_jobs.set(sum(map(len, self._parked.values())))

    def _let_go(self, entry: Entry, *, probe: bool = False) -> None:
        self.unpark(entry)
        if probe:
            self._probes.add(entry)
        self._happened(entry, Event.REACHABLE)

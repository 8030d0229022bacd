"""A worker's part in consolidation: measures its load, reports it, asks for a rebalance.

What is decided is decided in `aril.worker.placement.plan` (who gets what) and
`aril.worker.placement.trigger` (when to ask); here are the clock and the metrics.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aril.worker.observe.logs import get_logger
from aril.worker.placement.load_meter import LoadMeter
from aril.worker.placement.load_report import Report, encode_report
from aril.worker.placement.trigger import Trigger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.job import Partition
    from aril.worker.observe.metrics import Metrics
    from aril.worker.placement.load_meter import Sample
    from aril.worker.placement.load_report import Notice
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)

SAMPLE_SECONDS: Final = 1.0


class Consolidation:
    """One member of a group that consolidates. Lives on the event loop."""

    def __init__(self, settings: WorkerSettings, metrics: Metrics) -> None:
        self._rows = settings.max_rows
        self._metrics = metrics
        self._meter = LoadMeter(settings.slots)
        self._trigger = Trigger(rows=settings.max_rows, seconds=settings.rebalance_seconds)
        self._held: frozenset[Partition] = frozenset()
        self._generation = -1  # in which we got what we hold
        self._sequence = 0
        self._asked = False

    def report(self, generation: int, *, draining: bool) -> bytes:
        """Return what the leader is told. A rebalance may take several requests to join.

        `generation` is the group's that we are in now, -1 while membership is lost.
        """
        self._sequence += 1
        return encode_report(
            Report(
                sequence=self._sequence,
                rows=self._rows,
                # Less than our own where we were thrown out: others may have had it since.
                generation=min(self._generation, generation),
                draining=draining,
                asked=self._asked,
                adapters=self._meter.adapters,
                held=self._meter.loads(time.monotonic()),
            )
        )

    def on_assignment(
        self, partitions: Sequence[Partition], notice: Notice | None, generation: int
    ) -> None:
        """Take note of what we got, in `generation`; before the consumer's own callback."""
        now = time.monotonic()
        before, self._held = self._held, frozenset(partitions)
        self._generation = generation
        self._asked = False
        told = notice is not None and len(notice.loads) == len(partitions)
        loads = notice.loads if notice is not None and told else [None] * len(partitions)
        self._meter.assigned(dict(zip(partitions, loads, strict=True)), now)
        self._trigger.told(notice, now, changed=self._held != before)
        self._metrics.partitions_gained.inc(len(self._held - before))
        if notice is not None:
            self._metrics.workers_open.set(notice.open)
            self._metrics.workers_standby.set(notice.standby)

    def look(self, seen: Sample, now: float, *, draining: bool) -> bool:
        """Take one sample in; return whether it is time to ask for a rebalance."""
        self._meter.observe(seen, now)
        loads = [each.rows or 0.0 for each in self._meter.loads(now).values()]
        self._metrics.load_rows.set(sum(loads))
        why = None if draining else self._trigger.ask(loads, now)
        if why is not None:
            log.info("rebalance_asked", why=why.value, load=round(sum(loads), 1), rows=self._rows)
            self._metrics.rebalances_asked.labels(why.value).inc()
            self._asked = True
        return why is not None

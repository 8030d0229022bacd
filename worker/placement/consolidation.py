"""A worker's part in consolidation: measures its load, reports it, asks for a rebalance.

What is decided is decided in `worker.placement.plan` (who gets what) and `worker.placement.trigger`
(when to ask); here are the clock, the consumer and the metrics.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol

from worker.observe.logs import get_logger
from worker.placement.assignor import make_assignor
from worker.placement.load_meter import LoadMeter
from worker.placement.load_report import Report, encode_report
from worker.placement.trigger import Trigger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.job import Partition
    from worker.observe.metrics import Metrics
    from worker.placement.load_meter import Sample
    from worker.placement.load_report import Notice
    from worker.settings import WorkerSettings

log = get_logger(__name__)

SAMPLE_SECONDS: Final = 1.0


class GroupMember(Protocol):
    """The consumer, as far as consolidation goes."""

    @property
    def generation(self) -> int:
        """The group's generation that we are in; -1 while membership is lost."""

    @property
    def resting(self) -> bool:
        """Whether no more is read: the worker drains."""

    def rejoin(self) -> None:
        """Join the group anew: a rebalance."""


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
        self._consumer: GroupMember
        self.assignor = make_assignor(self)

    def bind(self, consumer: GroupMember) -> None:
        """Set whom we speak for."""
        self._consumer = consumer

    def report(self) -> bytes:
        """Return what the leader is told. A rebalance may take several requests to join."""
        self._sequence += 1
        return encode_report(
            Report(
                sequence=self._sequence,
                rows=self._rows,
                # Less than our own where we were thrown out: others may have had it since.
                generation=min(self._generation, self._consumer.generation),
                draining=self._consumer.resting,
                asked=self._asked,
                adapters=self._meter.adapters,
                held=self._meter.loads(time.monotonic()),
            )
        )

    def on_assignment(self, partitions: Sequence[Partition], notice: Notice | None) -> None:
        """Take note of what we got; it comes before the consumer's own callback."""
        now = time.monotonic()
        before, self._held = self._held, frozenset(partitions)
        self._generation = self._consumer.generation
        self._asked = False
        told = notice is not None and len(notice.loads) == len(partitions)
        loads = notice.loads if notice is not None and told else [None] * len(partitions)
        self._meter.assigned(dict(zip(partitions, loads, strict=True)), now)
        self._trigger.told(notice, now, changed=self._held != before)
        self._metrics.partitions_gained.inc(len(self._held - before))
        if notice is not None:
            self._metrics.workers_open.set(notice.open)
            self._metrics.workers_standby.set(notice.standby)

    async def run(self, sample: Callable[[], Sample]) -> None:
        """Measure and judge, until cancelled."""
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            self.look(sample(), time.monotonic())

    def look(self, seen: Sample, now: float) -> None:
        """Take one sample in; ask for a rebalance if it is time."""
        self._meter.observe(seen, now)
        loads = [each.rows or 0.0 for each in self._meter.loads(now).values()]
        self._metrics.load_rows.set(sum(loads))
        why = None if self._consumer.resting else self._trigger.ask(loads, now)
        if why is not None:
            log.info("rebalance_asked", why=why.value, load=round(sum(loads), 1), rows=self._rows)
            self._metrics.rebalances_asked.labels(why.value).inc()
            self._asked = True
            self._consumer.rejoin()

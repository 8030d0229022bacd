"""The jobs side of Kafka: polling, rebalances, pauses and commits. A thin driver.

What is done about aiokafka's habits, each with its reason in docs/how-it-works.md: ``getmany`` is
never cancelled, records wait until the assignment that they belong to is set up, pauses are
restored after every rebalance, commits go through our own adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from aiokafka import ConsumerRebalanceListener, TopicPartition, errors
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from aril.fetching.tolerant import end_before_unreadable
from aril.worker.job import Partition
from aril.worker.observe.logs import get_logger
from aril.worker.placement.assignor import ask_for_rebalance, make_assignor
from aril.worker.queue.assignment import PartitionState
from aril.worker.queue.commits import membership_of
from aril.worker.queue.committed import positions_of
from aril.worker.queue.delivery import Delivery
from aril.worker.queue.identities import IdentityBound
from aril.worker.queue.lag import logs_of
from aril.worker.queue.member import make_member
from aril.worker.queue.pauses import apply_pauses
from aril.worker.queue.unreadable import UnreadableBatches
from aril.worker.queue.watchdog import progress_of
from aril.worker.topics.subscription import topic_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aiokafka import AIOKafkaConsumer

    from aril.worker.placement.consolidation import Consolidation
    from aril.worker.queue.commits import Commits
    from aril.worker.queue.delivery import Handler
    from aril.worker.queue.raw_batch import Part
    from aril.worker.queue.watchdog import Progress
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)

POLL_MS = 200
POLL_RECORDS = 1_000
# A signature takes 0.1 ms to verify (benchmarks/signatures.py): streams do not wait for many.
POLL_RECORDS_SIGNED = 100
STOP_SECONDS = 10.0
OFFSETS_PAUSE_SECONDS = 1.0  # between assignments whose offsets nobody tells


class JobsConsumer(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """One member of the workers' consumer group."""

    def __init__(
        self,
        settings: WorkerSettings,
        handler: Handler,
        client_id: str,
        commits: Commits,
        consolidation: Consolidation | None = None,
    ) -> None:
        self._settings = settings
        self._handler = handler
        self._client_id = client_id
        self._commits = commits
        self._assignor = StickyPartitionAssignor
        if consolidation is not None:
            self._assignor = make_assignor(
                lambda: consolidation.report(self.generation, draining=self._resting),
                lambda got, notice: consolidation.on_assignment(got, notice, self.generation),
            )
        signed = settings.tenant_from == "signature"
        self._poll_records = POLL_RECORDS_SIGNED if signed else POLL_RECORDS
        self._consumer = self._make_consumer()
        self._states: dict[Partition, PartitionState] = {}
        self._parted: dict[Partition, PartitionState] = {}  # of the assignment before
        self._finished_jobs = IdentityBound()
        self._delivery = Delivery(handler)
        self._unreadable = UnreadableBatches(self)
        self._ended = 0  # assignments that were taken away
        self._set_up = asyncio.Event()  # cleared while an assignment is being set up
        self._joined = asyncio.Event()
        self._assignments = 0
        self._held: set[Partition] = set()  # in the last assignment that was set up
        self._stopping = False
        self._resting = False
        self._replacing = False
        self.in_the_way = False  # it rests, and was given partitions that others would read

    def _make_consumer(self) -> AIOKafkaConsumer:
        consumer = make_member(self._settings, self._client_id, self._assignor)
        self._commits.speak_through(consumer)
        return consumer

    @property
    def states(self) -> list[PartitionState]:
        """The partitions that are held now."""
        return list(self._states.values())

    @property
    def generation(self) -> int:
        """The group's generation that we are in; -1 while membership is lost."""
        membership = membership_of(self._consumer, self._assignments)
        return -1 if membership is None else membership.generation

    @property
    def resting(self) -> bool:
        """Whether no more jobs are read."""
        return self._resting

    async def start(self) -> None:
        """Connect and join the group. Raises KafkaError when no broker answers."""
        pattern = topic_pattern(self._settings.jobs_topic, self._settings.dlq_topic)
        if pattern is None:
            self._consumer.subscribe(topics=[self._settings.jobs_topic], listener=self)
        else:
            self._consumer.subscribe(pattern=pattern.pattern, listener=self)
        try:
            await self._consumer.start()
        except BaseException:
            await self._consumer.stop()
            raise
        found = self._unreadable.found
        consumer = self._consumer
        end_before_unreadable(consumer, lambda where, offset: found(consumer, where, offset))

    async def joined(self) -> None:
        """Wait until the group gave us an assignment, be it an empty one."""
        await self._joined.wait()

    def rest(self) -> None:
        """Read no more jobs, but stay a member: the running ones are being finished."""
        self._resting = True

    def rejoin(self) -> None:
        """Have the group rebalance; nothing happens while this consumer comes or goes."""
        if not (self._stopping or self._replacing):
            ask_for_rebalance(self._consumer)

    async def run(self) -> None:
        """Poll until ``stop``. Raises what aiokafka cannot get over by itself."""
        while not self._stopping:
            if self._replacing:
                await asyncio.sleep(POLL_MS / 1_000)
                continue
            await asyncio.sleep(0)  # getmany does not give way while it has records at hand
            self._apply_pauses()
            consumer = self._consumer
            try:
                batches = await consumer.getmany(timeout_ms=POLL_MS, max_records=self._poll_records)
            except errors.ConsumerStoppedError:
                continue  # we are leaving, or it is being replaced
            except errors.KafkaError as error:
                if not error.retriable:
                    raise
                log.warning("poll_failed", error=type(error).__name__)
                await asyncio.sleep(POLL_MS / 1_000)
                continue
            # What comes of an unreadable batch waits until what was read before it is handed out.
            ended = self._ended
            async with self._delivery.turn:
                # getmany may return records of an assignment whose callback is still running.
                await self._set_up.wait()
                # Of one that is over, they are read again: here they would make all below them
                # count as finished.
                if consumer is self._consumer and ended == self._ended:
                    await self._deliver_all(batches)

    async def progress(self) -> dict[Partition, Progress]:
        """Return how far each partition is that should be read; empty when it cannot be told."""
        reading = [
            each
            for each in self._consumer.assignment() - self._consumer.paused()
            if Partition(each.topic, each.partition) in self._states
        ]
        if not reading or not self._set_up.is_set():
            return {}
        return await progress_of(self._consumer, reading)

    async def logs(self) -> dict[Partition, range] | None:
        """Return which offsets the logs hold that are held; None where that cannot be told."""
        if self._replacing or not self._set_up.is_set():
            return None
        return await logs_of(self._consumer, self._states)

    async def replace(self) -> None:
        """Join the group with a new consumer in place of the present one."""
        self._replacing = True
        self._end_assignment()
        states, self._states = self.states, {}
        self._revoke(states)
        with contextlib.suppress(errors.KafkaError, TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await self._consumer.stop()
        self._consumer = self._make_consumer()
        await self.start()
        self._replacing = False
        log.warning("consumer_replaced")

    async def stop(self) -> None:
        """Commit what is finished and leave the group."""
        self._stopping = True
        self._unreadable.forget()
        self._delivery.close()
        self._set_up.set()  # lets `run` see it, should it wait for an assignment
        for state in self.states:  # nothing of them is begun any more
            state.revoked = True
        await self.commit()
        await self._consumer.stop()

    async def commit(self) -> None:
        """Commit what is finished of every partition, where it grew."""
        await self._commits.commit(lambda: self.states)

    async def on_partitions_revoked(
        self,
        revoked: Iterable[TopicPartition],  # noqa: ARG002 - eager rebalances: it is all of them
    ) -> None:
        """Stop the work of every partition."""
        self._end_assignment()
        states = self.states
        if not states:
            return
        self._revoke(states)
        await self._commits.commit(lambda: states)
        self._parted, self._states = self._states, {}
        log.info("partitions_revoked", partitions=len(states))

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Set up the new assignment; until this ends no record of it is looked at."""
        partitions = sorted(assigned)
        self._assignments += 1
        membership = membership_of(self._consumer, self._assignments)
        if membership is None:  # lost again already: a new assignment is on its way
            return
        found = await positions_of(self._consumer, partitions)
        if found is None:  # nothing of it is read, and nothing committed: it is asked for anew
            await asyncio.sleep(OFFSETS_PAUSE_SECONDS)
            ask_for_rebalance(self._consumer)
            return
        for each, lost in found.lost.items():
            self._handler.on_lost_jobs(Partition(each.topic, each.partition), lost)
        self._states = {
            (source := Partition(each.topic, each.partition)): PartitionState(
                source,
                membership,
                found.ends[each],
                found.committed.get(each),
                self._parted.get(source),
                bound=self._finished_jobs,
            )
            for each in partitions
        }
        self._finished_jobs.hold(state.finished_jobs for state in self.states)
        self._parted = {}
        held, self._held = self._held, set(self._states)
        self.in_the_way = self._resting and not self._held <= held
        self._handler.on_assigned(self.states)
        self._set_up.set()
        self._joined.set()
        log.info(
            "partitions_assigned", partitions=len(partitions), generation=membership.generation
        )

    def _revoke(self, states: list[PartitionState]) -> None:
        for state in states:
            state.revoked = True
        self._handler.on_revoked(states)

    def _end_assignment(self) -> None:
        self._set_up.clear()
        self._ended += 1
        self._unreadable.forget()

    async def _deliver_all(self, batches: dict[TopicPartition, list[Any]]) -> None:
        """Hand out what was polled, unless its assignment ends meanwhile."""
        await self._delivery.polled(
            # Looked up before anything is waited for: later, the states may be others.
            (state, records)
            for each, records in list(batches.items())
            if (state := self._states.get(_partition(each))) is not None
        )

    async def state_of(self, where: TopicPartition) -> PartitionState | None:
        """See `aril.worker.queue.unreadable.Reader`."""
        await self._set_up.wait()
        return self._states.get(_partition(where))

    async def take(self, state: PartitionState, parts: Sequence[Part]) -> None:
        """See `aril.worker.queue.unreadable.Reader`."""
        async with self._delivery.turn:
            await self._delivery.hand_out(state, parts)

    def resume(self) -> None:
        """See `aril.worker.queue.unreadable.Reader`."""
        self._apply_pauses()

    def _apply_pauses(self) -> None:
        apply_pauses(
            self._consumer,
            lambda each: (
                self._resting or each in self._unreadable or self._is_full(_partition(each))
            ),
        )

    def _is_full(self, source: Partition) -> bool:
        state = self._states.get(source)
        return self._handler.is_full(source) or (state is not None and state.crowded)


def _partition(each: TopicPartition) -> Partition:
    return Partition(each.topic, each.partition)

"""The jobs side of Kafka: polling, rebalances, pauses and commits. A thin driver.

How the worker is a member of its group is `aril.worker.queue.membership`'s: there all partitions go
and come at once, or some while the others are read on.

What is done about aiokafka's habits, each with its reason in docs/how-it-works.md: ``getmany`` is
never cancelled, records wait until the assignment that they belong to is set up, pauses are
restored after every rebalance, commits go through our own adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition, errors

from aril.fetching.tolerant import end_before_unreadable
from aril.worker.job import Partition
from aril.worker.observe.logs import get_logger
from aril.worker.queue.assignment import PartitionState
from aril.worker.queue.committed import positions_of
from aril.worker.queue.delivery import Delivery
from aril.worker.queue.identities import IdentityBound
from aril.worker.queue.lag import logs_of
from aril.worker.queue.membership.make import make_group_member
from aril.worker.queue.pauses import apply_pauses
from aril.worker.queue.unreadable import UnreadableBatches
from aril.worker.queue.watchdog import progress_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer

    from aril.worker.placement.consolidation import Consolidation
    from aril.worker.queue.assignment import Membership
    from aril.worker.queue.commits import Commits
    from aril.worker.queue.delivery import Handler
    from aril.worker.queue.membership.interface import GroupMember
    from aril.worker.queue.raw_batch import Part
    from aril.worker.queue.watchdog import Progress
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)

POLL_MS = 200
POLL_RECORDS = 1_000
# A signature takes 0.1 ms to verify (benchmarks/signatures.py): streams do not wait for many.
POLL_RECORDS_SIGNED = 100


class JobsConsumer:
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
        self._consolidation = consolidation
        signed = settings.tenant_from == "signature"
        self._poll_records = POLL_RECORDS_SIGNED if signed else POLL_RECORDS
        self._member = self._make_member()
        self._states: dict[Partition, PartitionState] = {}
        self._parted: dict[Partition, PartitionState] = {}  # of the assignment before
        self._finished_jobs = IdentityBound()
        self._delivery = Delivery(handler)
        self._unreadable = UnreadableBatches(self)
        self._ended: Counter[TopicPartition] = Counter()  # how often each was taken away
        self._set_up = asyncio.Event()  # cleared while nothing is held
        self._joined = asyncio.Event()
        self._failure: Exception | None = None
        self._stopping = False
        self._resting = False
        self._replacing = False
        self._leaving: asyncio.Task[None] | None = None
        self._ending = asyncio.Lock()

    def _make_member(self) -> GroupMember:
        member = make_group_member(self._settings, self._client_id, self._consolidation)
        self._commits.speak_through(member)
        return member

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        return self._member.reader

    @property
    def states(self) -> list[PartitionState]:
        """The partitions that are held now."""
        return list(self._states.values())

    @property
    def generation(self) -> int:
        """The group's generation that we are in; -1 while membership is lost."""
        return self._member.generation

    @property
    def resting(self) -> bool:
        """Whether no more jobs are read."""
        return self._resting

    async def start(self) -> None:
        """Connect and join the group.

        Raises KafkaError when no broker answers, and GroupProtocolError.
        """
        await self._member.start(self)
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
            self._member.rejoin()

    async def run(self) -> None:
        """Poll until ``stop``. Raises what aiokafka cannot get over by itself."""
        while not self._stopping:
            if self._failure is not None:
                raise self._failure
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
            ended = {each: self._ended[each] for each in batches}
            async with self._delivery.turn:
                # getmany may return records of an assignment whose callback is still running.
                await self._set_up.wait()
                # Of one that is over, they are read again: here they would make all below them
                # count as finished.
                if consumer is self._consumer:
                    await self._deliver_all(
                        {
                            each: records
                            for each, records in batches.items()
                            if self._ended[each] == ended[each]
                        }
                    )

    async def progress(self) -> dict[Partition, Progress]:
        """Return how far each partition is that should be read; empty when it cannot be told."""
        if self._stopping:
            return {}
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
        if self._stopping or self._replacing or not self._set_up.is_set():
            return None
        return await logs_of(self._consumer, self._states)

    async def replace(self) -> None:
        """Join the group with a new consumer in place of the present one."""
        self._replacing = True
        self._end_assignment(self._consumer.assignment())
        states, self._states = self.states, {}
        self._revoke(states)
        with contextlib.suppress(errors.KafkaError):
            await self._end_membership()
        if self._stopping:  # nobody would stop the new one
            return
        self._member = self._make_member()
        await self.start()
        self._replacing = False
        log.warning("consumer_replaced")

    def leave(
        self, going_on: Mapping[Partition, Collection[int]], seconds: float
    ) -> asyncio.Task[None]:
        """Begin to leave the group, if that is not so yet; return what ends once it is left.

        The jobs at these offsets go on here, for so long at most: who has them next waits.
        """
        self._stopping = True
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(going_on, seconds))
        return self._leaving

    async def stop(self) -> None:
        """Commit what is finished and leave the group."""
        await self.leave({}, 0.0)

    async def _leave(self, going_on: Mapping[Partition, Collection[int]], seconds: float) -> None:
        self._unreadable.forget(self._consumer.assignment())
        self._delivery.close()
        self._set_up.set()  # lets `run` see it, should it wait for an assignment
        for state in self.states:  # nothing more of them is begun
            state.goes_on(going_on.get(state.source, ()), seconds)
            state.part(self.generation, now=time.monotonic())
        await self._commits.commit(lambda: self.states)
        await self._end_membership()

    async def _end_membership(self) -> None:
        async with self._ending:  # one that is being replaced leaves once
            await self._member.stop()

    async def commit(self) -> None:
        """Commit what is finished of every partition, where it grew."""
        if not self._stopping:  # the last one has been made, or is
            await self._commits.commit(lambda: self.states)

    def fail(self, error: Exception) -> None:
        """See `aril.worker.queue.membership.interface.Holder`."""
        self._failure = error
        self._set_up.set()  # lets `run` see it, should it wait for an assignment

    async def taken(self, partitions: Iterable[TopicPartition], *, lost: bool = False) -> None:
        """See `Holder`: stop the work of these partitions."""
        partitions = list(partitions)
        self._end_assignment(partitions)
        found = (self._states.pop(_partition(each), None) for each in partitions)
        states = [state for state in found if state is not None]
        if not states:
            return
        self._revoke(states)
        if not lost:
            await self._commits.commit(lambda: states)
        self._parted |= {state.source: state for state in states}
        log.info("partitions_revoked", partitions=len(states))

    async def given(self, partitions: Sequence[TopicPartition], membership: Membership) -> bool:
        """See `Holder`: set these up; until this ends no record of them is looked at."""
        if self._stopping:  # nothing of it would be begun
            return True
        ended = {each: self._ended[each] for each in partitions}
        found = await positions_of(self._consumer, partitions, self._member.committed)
        if found is None:  # nothing of it is read, and nothing committed
            return False
        partitions = [each for each in partitions if self._ended[each] == ended[each]]
        for each in partitions:
            source = _partition(each)
            if lost := found.lost.get(each):
                self._handler.on_lost_jobs(source, lost)
            self._states[source] = PartitionState(
                source,
                membership,
                found.ends[each],
                found.committed.get(each),
                self._parted.get(source),
                bound=self._finished_jobs,
                now=time.monotonic(),
            )
        self._finished_jobs.hold(state.finished_jobs for state in self.states)
        self._parted = {}
        self._member.begin({each: found.start(each) for each in partitions})
        self._handler.on_assigned(self.states)
        self._set_up.set()
        self._joined.set()
        self.resume()
        log.info(
            "partitions_assigned",
            partitions=len(self._states),
            given=len(partitions),
            generation=membership.generation,
        )
        return True

    def _revoke(self, states: list[PartitionState]) -> None:
        for state in states:
            state.part(self.generation, now=time.monotonic())
        if not self._stopping:  # else it has stopped all work already
            self._handler.on_revoked(states)

    def _end_assignment(self, partitions: Iterable[TopicPartition]) -> None:
        partitions = list(partitions)
        self._ended.update(partitions)
        self._unreadable.forget(partitions)
        if not (self._stopping or self._states.keys() - map(_partition, partitions)):
            self._set_up.clear()

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

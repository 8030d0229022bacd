"""A member by the protocol of KIP-848: librdkafka is in the group, aiokafka reads.

librdkafka's consumer subscribes, heartbeats and is told which partitions come and go; all of them
are paused, so it fetches nothing. Its callbacks run on our event loop while one of its threads
waits for them: it acknowledges that partitions go only once our last commit of them is answered.
Its epoch is looked at after each poll and in each callback. It rises while partitions stay; that of
a partition stays what it was when the partition came (docs/decisions/097).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import confluent_kafka
from aiokafka import TopicPartition
from confluent_kafka.aio import AIOConsumer

from aril.worker.observe.logs import get_logger
from aril.worker.queue.assignment import Membership
from aril.worker.queue.commits import send_commit
from aril.worker.queue.member import make_member
from aril.worker.queue.membership.coordinator import Coordinator
from aril.worker.queue.membership.group_type import look_before_joining, refuse_mixed_group
from aril.worker.queue.membership.interface import GroupProtocolError
from aril.worker.queue.membership.leaving import said
from aril.worker.queue.membership.librdkafka import DaemonThreads, options_of
from aril.worker.queue.membership.metadata import identity_of
from aril.worker.queue.membership.oauth import Tokens
from aril.worker.queue.membership.reading import Reading
from aril.worker.queue.membership.requests import EpochCommitRequest
from aril.worker.topics.subscription import broker_pattern, topic_pattern

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer

    from aril.worker.job import Partition
    from aril.worker.queue.ledger import Checkpoint
    from aril.worker.queue.membership.interface import Holder
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)

POLL_SECONDS: Final = 0.1  # how late a rebalance, or an epoch, may be noticed
OFFSETS_PAUSE_SECONDS: Final = 1.0  # until offsets that nobody told are asked for again


class ConsumerMember:
    """A member whose partitions come and go one by one, as the brokers assign them."""

    def __init__(self, settings: WorkerSettings, client_id: str) -> None:
        self._settings = settings
        self._client_id = client_id
        self._pattern = topic_pattern(settings.jobs_topic, settings.dlq_topic)
        self._reader = make_member(settings, client_id, None)
        self._reading = Reading(self._reader)
        # The group is asked through no other connections than the reader's.
        self._client = self._reader._client  # noqa: SLF001 - nothing public has it
        self._coordinator = Coordinator(self._client, settings.group)
        self._member: AIOConsumer | None = None
        self._polling: asyncio.Task[None] | None = None
        self._setting_up: set[asyncio.Task[None]] = set()
        self._held: dict[TopicPartition, Membership] = {}
        self._last: dict[TopicPartition, int] = {}  # the epoch in which each came last
        self._number = 0
        self._now = Membership(0, -1, "")
        self._greeted = False  # the holder knows that we have joined
        self._leaving = False
        self._gone = False  # librdkafka still closes, and what it tells is over
        self._rejoins = False

    @property
    def reader(self) -> AIOKafkaConsumer:
        """See `GroupMember`."""
        return self._reader

    @property
    def generation(self) -> int:
        """Our epoch as a member."""
        return self._now.generation

    async def start(self, holder: Holder) -> None:
        """See `GroupMember`."""
        try:
            await look_before_joining(self._settings, self._client_id)
            await self._reader.start()
            self._reader.assign([])
            options = options_of(self._settings, self._client_id)
            if self._settings.sasl_token_provider is not None:
                options["oauth_cb"] = await Tokens.of(self._settings)
            self._member = AIOConsumer(options, executor=DaemonThreads())
            await self._subscribe(self._member, holder)
        except confluent_kafka.KafkaException as error:
            await self.stop()
            raise GroupProtocolError(f"group {self._settings.group}: {error}") from None
        except BaseException:
            await self.stop()
            raise
        self._polling = asyncio.create_task(self._poll(self._member, holder))

    async def stop(self) -> None:
        """Leave the group: in here partitions are taken for the last time."""
        self._leaving = True
        member, self._member = self._member, None
        try:
            self._gone = not await said(asyncio.create_task(self._leave(member)))
        finally:
            for task in self._setting_up:
                task.cancel()
            await self._reader.stop()

    async def _leave(self, member: AIOConsumer | None) -> None:
        """Leave; where that is given up, it goes on, without anything to be done at its end."""
        if self._polling is not None:
            await asyncio.wait({self._polling})
        if member is not None:
            await member.close()

    def rejoin(self) -> None:
        """Leave and come back: in a higher epoch, and with whatever partitions the brokers give."""
        self._rejoins = True

    def begin(self, starts: Mapping[TopicPartition, int]) -> None:
        """See `GroupMember`."""
        self._reading.begin(starts)

    async def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Checkpoint]:
        """See `GroupMember`."""
        return await self._coordinator.committed(partitions)

    def as_whom(self, membership: Membership) -> Membership:  # noqa: ARG002 - the interface
        """Return who we are now: the broker takes a commit in the present epoch only.

        That the partitions are still ours is known: they are taken before another epoch begins.
        """
        return self._now

    async def commit(
        self, membership: Membership, checkpoints: Mapping[Partition, Checkpoint]
    ) -> Collection[Partition]:
        """See `GroupMember`."""
        if membership.generation < 1:
            return ()
        request = EpochCommitRequest(
            self._settings.group, membership.member_id, membership.generation, checkpoints
        )
        return await send_commit(request, self._coordinator.send, self._coordinator.forget)

    async def _subscribe(self, member: AIOConsumer, holder: Holder) -> None:
        settings = self._settings
        pattern = broker_pattern(settings.jobs_topic)

        async def assigned(_: object, given: list[Any]) -> None:
            await self._assigned(member, given, holder)

        async def revoked(_: object, gone: list[Any]) -> None:
            if self._gone:
                return
            await self._look(member)  # the epoch to part in: it stays until we acknowledge
            await self._taken(gone, holder, lost=False)
            await member.incremental_unassign(gone)

        async def lost(_: object, gone: list[Any]) -> None:
            if not self._gone:
                await self._taken(gone, holder, lost=True)

        await member.subscribe(
            [pattern or settings.jobs_topic], on_assign=assigned, on_revoke=revoked, on_lost=lost
        )

    async def _poll(self, member: AIOConsumer, holder: Holder) -> None:
        try:
            while not self._leaving:
                if self._rejoins:
                    self._rejoins = False
                    await member.unsubscribe()
                    await self._subscribe(member, holder)
                message = await member.poll(POLL_SECONDS)
                if message is not None:
                    _judge(message)
                await self._look(member)
                if self._now.generation > 0 and not self._greeted:  # perhaps without a partition
                    self._greeted = True
                    await holder.given([], self._now)
        except Exception as error:
            if not isinstance(error, GroupProtocolError):
                log.exception("membership_failed")
            holder.fail(error)

    async def _look(self, member: AIOConsumer) -> None:
        try:
            metadata = await member.consumer_group_metadata()
        except RuntimeError:  # as it closes: it has left, and tells of what is over only then
            if not self._leaving:
                raise
            self._now = Membership(self._number, -1, "")
            return
        told = identity_of(metadata, self._settings.group)
        self._now = Membership(self._number, told.epoch, told.member_id)

    async def _assigned(self, member: AIOConsumer, given: list[Any], holder: Holder) -> None:
        if self._leaving:  # told within `close`: librdkafka takes it, and parts with it next
            return
        places = [TopicPartition(each.topic, each.partition) for each in given]
        if self._pattern is not None:  # else dead letters would be read as jobs
            places = [each for each in places if self._pattern.match(each.topic)]
        # From the end, which has to be asked for: by then they are paused, and nothing is fetched.
        end = confluent_kafka.OFFSET_END
        await member.incremental_assign(
            [confluent_kafka.TopicPartition(each.topic, each.partition, end) for each in given]
        )
        await member.pause(given)
        await self._look(member)
        epoch = self._now.generation
        if epoch < 1 or not places:  # lost already, of which we are told next
            return
        await refuse_mixed_group(self._client, self._settings.group, "consumer")
        if any(self._last.get(place) == epoch for place in places):
            # Two assignments in one epoch could not be told apart in the log.
            log.warning("assigned_twice_in_an_epoch", epoch=epoch)
            self._rejoins = True
            return
        self._number += 1
        self._now = membership = Membership(self._number, epoch, self._now.member_id)
        self._held |= dict.fromkeys(places, membership)
        self._last |= dict.fromkeys(places, epoch)
        task = asyncio.create_task(self._set_up(places, membership, holder))
        self._setting_up.add(task)
        task.add_done_callback(self._setting_up.discard)

    async def _set_up(
        self, places: list[TopicPartition], membership: Membership, holder: Holder
    ) -> None:
        """Begin with partitions, as long as they are ours."""
        try:
            while places := [each for each in places if self._held.get(each) is membership]:
                if await holder.given(places, membership):
                    self._greeted = True
                    return
                await asyncio.sleep(OFFSETS_PAUSE_SECONDS)
        except Exception as error:
            log.exception("partitions_not_set_up")
            holder.fail(error)

    async def _taken(self, gone: list[Any], holder: Holder, *, lost: bool) -> None:
        places = [TopicPartition(each.topic, each.partition) for each in gone]
        for place in places:
            self._held.pop(place, None)
        self._reading.end(places)
        holder.resume()  # the others are no longer paused
        await holder.taken(places, lost=lost)
        if not self._leaving:
            await holder.given([], self._now)  # what is left is all there is


def _judge(message: Any) -> None:
    """Look at what a poll brought: nothing but errors, as all partitions are paused."""
    error = message.error()
    if error is None:
        return
    if error.fatal():
        raise GroupProtocolError(f"this worker cannot stay in its group: {error.str()}")
    log.warning("membership_disturbed", error=error.name(), why=error.str())

"""aiokafka's own membership: a rebalance takes all partitions and gives some, or all, back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor

from aril.worker.placement.assignor import ask_for_rebalance, make_assignor
from aril.worker.queue.commits import commit_offsets, committed_offsets, membership_of
from aril.worker.queue.member import make_member
from aril.worker.queue.membership.group_type import look_before_joining, refuse_mixed_group
from aril.worker.queue.membership.interface import GroupProtocolError
from aril.worker.queue.membership.leaving import said
from aril.worker.topics.subscription import topic_pattern

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from aril.worker.job import Partition
    from aril.worker.placement.consolidation import Consolidation
    from aril.worker.queue.assignment import Membership
    from aril.worker.queue.ledger import Checkpoint
    from aril.worker.queue.membership.interface import Holder
    from aril.worker.settings import WorkerSettings

OFFSETS_PAUSE_SECONDS = 1.0  # between assignments whose offsets nobody tells


class ClassicMember(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped
    """A member by the classic protocol, whose leader assigns."""

    def __init__(
        self, settings: WorkerSettings, client_id: str, consolidation: Consolidation | None
    ) -> None:
        self._settings = settings
        self._client_id = client_id
        self._holder: Holder | None = None
        self._assignments = 0
        assignor = StickyPartitionAssignor
        if consolidation is not None:
            assignor = make_assignor(
                lambda: consolidation.report(self.generation, draining=self._resting),
                lambda got, notice: consolidation.on_assignment(got, notice, self.generation),
            )
        self._reader = make_member(settings, client_id, assignor)

    @property
    def reader(self) -> AIOKafkaConsumer:
        """See `GroupMember`."""
        return self._reader

    @property
    def generation(self) -> int:
        """See `GroupMember`."""
        membership = membership_of(self._reader, self._assignments)
        return -1 if membership is None else membership.generation

    @property
    def _resting(self) -> bool:
        return self._holder is not None and self._holder.resting

    async def start(self, holder: Holder) -> None:
        """See `GroupMember`."""
        self._holder = holder
        settings = self._settings
        pattern = topic_pattern(settings.jobs_topic, settings.dlq_topic)
        if pattern is None:
            self._reader.subscribe(topics=[settings.jobs_topic], listener=self)
        else:
            self._reader.subscribe(pattern=pattern.pattern, listener=self)
        try:
            await look_before_joining(settings, self._client_id)
            await self._reader.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """See `GroupMember`."""
        coordinator = self._reader._coordinator  # noqa: SLF001 - aiokafka has no bound of its own
        try:
            if coordinator is not None:  # it has been started
                await _leave(coordinator)
        finally:
            await self._reader.stop()

    def rejoin(self) -> None:
        """See `GroupMember`."""
        ask_for_rebalance(self._reader)

    def begin(self, starts: Mapping[TopicPartition, int]) -> None:
        """Do nothing: aiokafka begins by itself where the group's offsets say."""

    async def committed(
        self, partitions: Sequence[TopicPartition]
    ) -> dict[TopicPartition, Checkpoint]:
        """See `GroupMember`."""
        return await committed_offsets(self._reader, partitions)

    def as_whom(self, membership: Membership) -> Membership:
        """Return the membership that partitions were won under, and never another."""
        return membership

    async def commit(
        self, membership: Membership, checkpoints: Mapping[Partition, Checkpoint]
    ) -> Collection[Partition]:
        """See `GroupMember`."""
        return await commit_offsets(self._reader, self._settings.group, membership, checkpoints)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Hand on that all partitions go."""
        assert self._holder is not None  # noqa: S101 - aiokafka calls once it is started
        await self._holder.taken(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Hand on what is ours now, unless it is lost again already."""
        holder = self._holder
        assert holder is not None  # noqa: S101 - same
        self._assignments += 1
        membership = membership_of(self._reader, self._assignments)
        if membership is None:  # a new assignment is on its way
            return
        try:
            client = self._reader._client  # noqa: SLF001 - the group is asked through no other
            await refuse_mixed_group(client, self._settings.group, "classic")
        except GroupProtocolError as error:
            holder.fail(error)
            return
        if not await holder.given(sorted(assigned), membership):
            await asyncio.sleep(OFFSETS_PAUSE_SECONDS)
            ask_for_rebalance(self._reader)


async def _leave(coordinator: Any) -> None:
    """Leave, or be out of it at least: nothing speaks for us any more once this ends."""
    leaving = asyncio.create_task(coordinator.close())
    if not await said(leaving):
        leaving.cancel()
        await asyncio.wait({leaving})
        await coordinator._stop_heartbeat_task()  # noqa: SLF001 - what it did not come to
        await coordinator._stop_commit_offsets_refresh_task()  # noqa: SLF001 - same

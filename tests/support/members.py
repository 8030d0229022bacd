"""Members of a workers' group on a real broker, with somebody who notes what they bring."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from typing import TYPE_CHECKING, Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aril.worker.queue.commits import Commits
from aril.worker.queue.consumer import JobsConsumer
from aril.worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from aril.worker.job import Partition, Record
    from aril.worker.placement.consolidation import Consolidation
    from aril.worker.queue.assignment import PartitionState
    from aril.worker.queue.raw_batch import Part
    from tests.support.brokers import Kafka

PARTITIONS = 4


@contextlib.asynccontextmanager
async def new_topic(kafka: Kafka, partitions: int = PARTITIONS) -> AsyncIterator[str]:
    """Make a jobs topic of a name of its own; give its name."""
    name = f"jobs-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, partitions, 1)])
    yield name
    await admin.close()


class Recorder:
    """Notes what the consumer tells, and finishes what it is told to."""

    def __init__(self) -> None:
        self.assigned: list[list[PartitionState]] = []
        self.revoked: list[list[PartitionState]] = []
        self.records: list[Record] = []
        self.unreadable: list[Part] = []
        self.lost: list[int] = []
        self.full = False

    def on_assigned(self, states: Iterable[PartitionState]) -> None:
        """Note it."""
        self.assigned.append(list(states))

    def on_records(self, state: PartitionState, records: list[Record]) -> None:
        """Note them."""
        assert not self.assigned or state in self.assigned[-1]
        self.records += records

    def on_unreadable(self, state: PartitionState, part: Part) -> None:
        """Note it."""
        assert state in self.assigned[-1]
        self.unreadable.append(part)

    def on_revoked(self, states: Iterable[PartitionState]) -> None:
        """Note it."""
        self.revoked.append(list(states))

    def on_lost_jobs(self, source: Partition, count: int) -> None:  # noqa: ARG002 - the interface
        """Note it."""
        self.lost.append(count)

    def is_full(self, source: Partition) -> bool:  # noqa: ARG002 - the interface
        """Tell what the test says."""
        return self.full


async def until(condition: Any, seconds: float = 30) -> None:
    """Wait for something that must come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is another's state
            await asyncio.sleep(0.02)


class Member:
    """A running consumer of a group."""

    def __init__(
        self,
        kafka: Kafka,
        topic: str,
        *,
        consolidation: Consolidation | None = None,
        **flags: Any,
    ) -> None:
        usual = {"bootstrap": kafka.bootstrap, "jobs_topic": topic, "group": f"g-{topic}"}
        self.settings = load_settings(flags=usual | flags).settings
        self.seen = Recorder()
        self.commits = Commits()
        self.consumer = JobsConsumer(self.settings, self.seen, "test", self.commits, consolidation)
        self.task: asyncio.Task[None] | None = None

    def held(self, partition: int) -> PartitionState:
        """Return a partition that is held now."""
        return next(each for each in self.consumer.states if each.source.partition == partition)

    def offsets(self, partition: int) -> list[int]:
        """Return what was delivered of a partition, in order."""
        return [each.offset for each in self.seen.records if each.source.partition == partition]

    async def __aenter__(self) -> Self:
        await self.consumer.start()
        self.task = asyncio.create_task(self.consumer.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.consumer.stop()
        assert self.task is not None
        await self.task


async def send(kafka: Kafka, topic: str, count: int, start: int = 0) -> None:
    """Append numbered records, round the partitions."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    for number in range(start, start + count):
        await producer.send_and_wait(topic, str(number).encode(), partition=number % PARTITIONS)
    await producer.stop()


async def committed(kafka: Kafka, group: str, topic: str, partition: int) -> int | None:
    """Read a committed offset as an outsider."""
    reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=group)
    await reader.start()
    try:
        offset: int | None = await reader.committed(TopicPartition(topic, partition))
    finally:
        await reader.stop()
    return offset

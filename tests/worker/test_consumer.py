"""Consumer and commits on a real broker: assignments, redelivery, and who may commit."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from worker.commits import commit_offsets, committed_offsets, membership_of
from worker.consumer import JobsConsumer
from worker.done_list import encode
from worker.jobs import Partition, Record
from worker.ledger import Checkpoint
from worker.partitions import Membership, PartitionState
from worker.settings import load_settings
from worker.silence import ConsumerSilentError, watch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka

PARTITIONS = 4


class Recorder:
    """Notes what the consumer tells, and finishes what it is told to."""

    def __init__(self) -> None:
        self.assigned: list[list[PartitionState]] = []
        self.revoked: list[list[PartitionState]] = []
        self.records: list[Record] = []
        self.lost: list[int] = []
        self.full = False

    def on_assigned(self, states: Iterable[PartitionState]) -> None:
        """Note it."""
        self.assigned.append(list(states))

    def on_records(self, state: PartitionState, records: list[Record]) -> None:
        """Note them."""
        assert not self.assigned or state in self.assigned[-1]
        self.records += records

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

    def __init__(self, kafka: Kafka, topic: str, **flags: Any) -> None:
        flags |= {"bootstrap": kafka.bootstrap, "jobs_topic": topic, "group": f"g-{topic}"}
        self.settings = load_settings(flags=flags).settings
        self.seen = Recorder()
        self.consumer = JobsConsumer(self.settings, self.seen, "test")
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


@pytest.fixture
async def topic(kafka: Kafka) -> AsyncIterator[str]:
    """Make a jobs topic of its own for each test."""
    name = f"jobs-{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, PARTITIONS, 1)])
    yield name
    await admin.close()


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


async def test_finished_offsets_are_committed_and_the_rest_comes_again(
    kafka: Kafka, topic: str
) -> None:
    """A second owner gets what the first one did not finish, older than its assignment."""
    await send(kafka, topic, 12)
    async with Member(kafka, topic) as first:
        await until(lambda: len(first.seen.records) == 12)
        state = first.held(1)
        state.finish_offset(0)
        await first.consumer.commit()
        assert state.committed is not None
        assert state.committed.position == 1
    async with Member(kafka, topic) as second:
        await until(lambda: len(second.seen.records) == 11)
        mine = [each.offset for each in second.seen.records if each.source.partition == 1]
        assert mine == [1, 2]
        assert all(
            each.offset < state.end_offset
            for state in second.consumer.states
            for each in second.seen.records
            if each.source == state.source
        )
        await send(kafka, topic, 4, start=12)
        await until(lambda: len(second.seen.records) == 15)
        fresh = {
            each.offset >= state.end_offset
            for state in second.consumer.states
            for each in second.seen.records[11:]
            if each.source == state.source
        }
        assert fresh == {True}


async def test_a_rebalance_gives_new_states_and_redelivers_what_is_open(
    kafka: Kafka, topic: str
) -> None:
    """Two members share the partitions; what was open is read again under the new assignment."""
    await send(kafka, topic, 8)
    async with Member(kafka, topic) as first:
        await until(lambda: len(first.seen.records) == 8)
        before = {state.source: state for state in first.consumer.states}
        async with Member(kafka, topic) as second:
            await until(lambda: len(second.consumer.states) == PARTITIONS // 2)
            await until(lambda: len(first.consumer.states) == PARTITIONS // 2)
            await until(lambda: len(first.seen.records) == 8 + 4)
            await until(lambda: len(second.seen.records) == 4)
            after = {state.source: state for state in first.consumer.states}
            kept = next(iter(after))
            assert after[kept] is not before[kept]
            assert after[kept].membership.number > before[kept].membership.number
            assert after[kept].membership.generation > before[kept].membership.generation
            assert set(after) | {state.source for state in second.consumer.states} == set(before)
            assert [len(states) for states in first.seen.revoked] == [PARTITIONS]


async def test_pauses_survive_a_rebalance(kafka: Kafka, topic: str) -> None:
    """A full backlog reads nothing more, also after a rebalance, and goes on when it has room."""
    async with Member(kafka, topic) as first:
        first.seen.full = True
        await until(lambda: first.consumer.states)
        async with Member(kafka, topic) as second:
            second.seen.full = True
            await until(lambda: len(second.consumer.states) == PARTITIONS // 2)
            await until(lambda: len(first.consumer.states) == PARTITIONS // 2)
            await asyncio.sleep(0.5)
            first.seen.records.clear()
            second.seen.records.clear()
            await send(kafka, topic, 8)
            await asyncio.sleep(0.7)
            assert first.seen.records == []
            first.seen.full = second.seen.full = False
            await until(lambda: len(first.seen.records) + len(second.seen.records) == 8)


async def test_the_captured_generation_is_the_groups(kafka: Kafka, topic: str) -> None:
    """Pin the private attribute that the epoch and every commit lean on."""
    async with Member(kafka, topic) as member:
        await until(lambda: member.consumer.states)
        membership = member.consumer.states[0].membership
        assert membership.generation >= 0
        assert membership.member_id
        inner = member.consumer._consumer
        assert membership_of(inner, 9) == Membership(9, membership.generation, membership.member_id)


async def test_a_commit_of_another_generation_or_member_is_refused(
    kafka: Kafka, topic: str
) -> None:
    """The broker takes a commit under the present membership only, and ours says so honestly."""
    await send(kafka, topic, 4)
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.seen.records) == 4)
        now = member.consumer.states[0].membership
        inner, group = member.consumer._consumer, member.settings.group
        source = Partition(topic, 0)
        stale = Membership(1, now.generation + 1, now.member_id)
        stranger = Membership(1, now.generation, "somebody-else")
        one = {source: Checkpoint(1, "")}
        assert not await commit_offsets(inner, group, stale, one)
        assert not await commit_offsets(inner, group, stranger, one)
        assert await committed(kafka, group, topic, 0) is None
        assert await commit_offsets(inner, group, now, one)
        assert await committed(kafka, group, topic, 0) == 1


async def test_a_commit_without_a_generation_is_never_sent(kafka: Kafka, topic: str) -> None:
    """Generation -1 would be taken from anybody by an empty group."""
    async with Member(kafka, topic) as member:
        with pytest.raises(ValueError, match="without a generation"):
            await commit_offsets(
                member.consumer._consumer,
                "g",
                Membership(1, -1, ""),
                {Partition(topic, 0): Checkpoint(1, "")},
            )


def keeps_metadata(kafka: Kafka) -> None:
    """Skip on the embedded broker, which drops what is committed beside the offset."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker drops commit metadata")


async def test_what_was_finished_beyond_the_position_does_not_come_again(
    kafka: Kafka, topic: str
) -> None:
    """Two restarts on: the third owner gets what nobody finished, and only that."""
    keeps_metadata(kafka)
    await send(kafka, topic, 40)
    async with Member(kafka, topic) as first:
        await until(lambda: len(first.seen.records) == 40)
        for offset in (0, 2, 3, 7):
            first.held(1).finish_offset(offset)
        first.held(2).finish_offset(9)
    async with Member(kafka, topic) as second:
        await until(lambda: len(second.seen.records) == 40 - 5)
        assert second.offsets(1) == [1, 4, 5, 6, 8, 9]
        assert second.offsets(2) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
        state = second.held(1)
        assert state.to_commit() is None
        state.finish_offset(5)
        await second.consumer.commit()
        assert state.committed == (1, encode(1, [range(2, 4), range(5, 6), range(7, 8)]))
        assert state.to_commit() is None
    async with Member(kafka, topic) as third:
        await until(lambda: len(third.seen.records) == 40 - 6)
        assert third.offsets(1) == [1, 4, 6, 8, 9]
        await send(kafka, topic, 4, start=40)
        await until(lambda: len(third.seen.records) == 44 - 6)
        for offset in (1, 4, 6, 8, 9, 10):
            third.held(1).finish_offset(offset)
        await third.consumer.commit()
        assert third.held(1).committed == (11, "")


@pytest.mark.parametrize("text", ["damaged", "a" * 4_096, encode(0, [range(1, 9)])])
async def test_unreadable_metadata_is_the_empty_list(kafka: Kafka, topic: str, text: str) -> None:
    """What others left beside the offset, or a list of another position: all is delivered."""
    await send(kafka, topic, 40)
    async with Member(kafka, topic) as first:
        await until(lambda: len(first.seen.records) == 40)
        first.held(1).finish_offset(0)
        await first.consumer.commit()  # so that it has nothing to say when it stops
        inner, group = first.consumer._consumer, first.settings.group
        left = {Partition(topic, 1): Checkpoint(1, text)}
        assert await commit_offsets(inner, group, first.held(1).membership, left)
    async with Member(kafka, topic) as second:
        await until(lambda: len(second.seen.records) == 39)
        assert second.offsets(1) == list(range(1, 10))


async def test_committed_metadata_is_read_in_one_request(kafka: Kafka, topic: str) -> None:
    """Pin the private call that gives offset and metadata; unknown partitions are left out."""
    await send(kafka, topic, 8)
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.seen.records) == 8)
        inner, group = member.consumer._consumer, member.settings.group
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        assert await committed_offsets(inner, partitions) == {}
        assert await committed_offsets(inner, []) == {}
        some = {Partition(topic, number): Checkpoint(number, f"text {number}") for number in (1, 2)}
        assert await commit_offsets(inner, group, member.held(1).membership, some)
        found = await committed_offsets(inner, partitions)
        assert {each.partition: offset for each, (offset, _) in found.items()} == {1: 1, 2: 2}
        texts = {each.partition: text for each, (_, text) in found.items()}
        kept = kafka.kind != "embedded"
        assert texts == ({1: "text 1", 2: "text 2"} if kept else {1: "", 2: ""})


async def test_the_largest_list_is_taken_by_the_broker(kafka: Kafka, topic: str) -> None:
    """4,096 bytes of metadata pass, for each of several partitions in one commit."""
    await send(kafka, topic, 4)
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.seen.records) == 4)
        text = encode(0, [range(at, at + 1) for at in range(1, 10_000, 2)])
        inner, group = member.consumer._consumer, member.settings.group
        full = {Partition(topic, number): Checkpoint(0, text) for number in range(PARTITIONS)}
        assert await commit_offsets(inner, group, member.held(0).membership, full)


async def test_a_crowded_partition_rests_and_its_neighbours_do_not(
    kafka: Kafka, topic: str
) -> None:
    """Nothing more is read where the done list is nearly full, until the oldest are done."""
    async with Member(kafka, topic) as member:
        await until(lambda: member.consumer.states)
        await send(kafka, topic, 8)
        await until(lambda: len(member.seen.records) == 8)
        crowded = member.held(1)
        assert crowded.ledger is not None
        # Stands for thousands of records of which every second one is finished.
        crowded.ledger._body_bytes += 4_000
        await asyncio.sleep(0.5)
        await send(kafka, topic, 8, start=8)
        await until(lambda: len(member.seen.records) == 14)
        await asyncio.sleep(0.5)
        assert member.offsets(1) == [0, 1]
        crowded.ledger._body_bytes -= 4_000
        await until(lambda: len(member.seen.records) == 16)


async def test_ownership_is_proved_by_a_commit_that_the_broker_takes(
    kafka: Kafka, topic: str
) -> None:
    """The owner proves it, grown or not; a state of an older assignment commits nothing."""
    await send(kafka, topic, 8)
    async with Member(kafka, topic) as first:
        await until(lambda: len(first.seen.records) == 8)
        group = first.settings.group
        old = {state.source.partition: state for state in first.consumer.states}
        old[1].finish_offset(0)
        assert await first.consumer.prove(old[1], 0)
        assert await first.consumer.prove(old[1], 0)
        assert old[1].committed == (1, "")
        assert await committed(kafka, group, topic, 1) == 1
        async with Member(kafka, topic) as second:
            await until(lambda: len(second.consumer.states) == PARTITIONS // 2)
            await until(lambda: len(first.consumer.states) == PARTITIONS // 2)
            for state in old.values():
                assert not await first.consumer.prove(state, 0)
                assert not await second.consumer.prove(state, 0)
            await until(lambda: len(second.seen.records) >= 3)
            assert all([await second.consumer.prove(state, 0) for state in second.consumer.states])


async def test_a_base_is_the_next_owners(kafka: Kafka, topic: str) -> None:
    """It is committed with the proof, kept by the commits that follow, and read at assignment."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker keeps no metadata")
    await send(kafka, topic, 4)
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.seen.records) == 4)
        assert await member.consumer.prove(member.held(1), 7)
        member.held(1).finish_offset(0)
        await member.consumer.commit()
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.consumer.states) == PARTITIONS)
        assert [member.held(each).base for each in range(PARTITIONS)] == [0, 7, 0, 0]
        assert member.held(1).position == 1


async def test_a_lost_membership_proves_nothing(kafka: Kafka, topic: str) -> None:
    """Also while we still believe to hold the partition: the broker has the last word."""
    await send(kafka, topic, 4)
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.seen.records) == 4)
        state = member.held(0)
        now = state.membership
        state.membership = Membership(now.number, now.generation + 1, now.member_id)
        assert not await member.consumer.prove(state, 0)
        state.membership = now
        state.revoked = True
        assert not await member.consumer.prove(state, 0)
        state.revoked = False
        assert await member.consumer.prove(state, 0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let silence count at once."""
    monkeypatch.setattr("worker.silence.WATCH_SECONDS", 0.2)
    monkeypatch.setattr("worker.silence.SILENT_SECONDS", 1.0)


async def nothing(*_: Any, **__: Any) -> dict[Any, Any]:
    """Do as a consumer does that has fallen silent."""
    await asyncio.sleep(0.05)
    return {}


@pytest.mark.usefixtures("impatient")
async def test_a_consumer_that_fell_silent_is_replaced(kafka: Kafka, topic: str) -> None:
    """It stays in the group and brings nothing: a new one takes its place and brings all."""
    async with Member(kafka, topic) as member:
        await until(lambda: member.seen.assigned)
        member.consumer._consumer.getmany = nothing
        await asyncio.sleep(0.5)  # the poll that was under way
        watching = asyncio.create_task(watch(member.consumer))
        await send(kafka, topic, 8)
        await until(lambda: len(member.seen.records) >= 8, seconds=60)
        assert sorted(int(each.value or b"") for each in member.seen.records) == list(range(8))
        assert not watching.done()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.usefixtures("impatient")
async def test_a_silence_that_a_new_consumer_does_not_cure_is_raised(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process cannot help itself: it has to end, so that another can be started."""
    monkeypatch.setattr(AIOKafkaConsumer, "getmany", nothing)
    async with Member(kafka, topic) as member:
        await until(lambda: member.seen.assigned)
        await send(kafka, topic, 8)
        with pytest.raises(ConsumerSilentError):
            await asyncio.wait_for(watch(member.consumer), 60)

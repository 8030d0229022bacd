"""Members of KIP-848 on a real broker: epochs, commits in them, what goes with a partition."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import structlog.testing
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from aril.worker.job import Partition
from aril.worker.queue.commits import send_commit
from aril.worker.queue.ledger import Checkpoint
from aril.worker.queue.membership.coordinator import Coordinator
from aril.worker.queue.membership.requests import EpochCommitRequest
from tests.support.members import PARTITIONS, Member, committed, send, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka


def epochs(member: Member) -> dict[Partition, int]:
    """Return the epoch that each partition came in."""
    return {state.source: state.membership.generation for state in member.consumer.states}


async def test_a_partition_moves_alone_and_into_a_higher_epoch(
    kafka: Kafka, topic: str, member: Callable[[], Member]
) -> None:
    """What stays is not touched; what moves comes with what its owner said, in the very next epoch.

    Also from an owner whose own epoch has risen since it got the partition.
    """
    await send(kafka, topic, 8)
    async with member() as first:
        await until(lambda: len(first.seen.records) == 8)
        before = {state.source: state for state in first.consumer.states}
        won = epochs(first)
        first.held(0).finish_offset(0)
        async with member() as second:
            await until(lambda: len(second.consumer.states) == PARTITIONS // 2)
            await until(lambda: len(first.consumer.states) == PARTITIONS // 2)
            assert all(before[state.source] is state for state in first.consumer.states)
            assert all(epochs(second)[each] > won[each] for each in epochs(second))
            assert all(state.is_fresh(2) for state in second.consumer.states)
            await until(lambda: first.consumer.generation > max(won.values()))
            stays = first.consumer.states[0]
            stays.finish_offset(stays.position or 0)
            await first.consumer.commit()
            assert stays.committed is not None
            won = epochs(first) | epochs(second)
            async with member() as third:
                await until(lambda: third.consumer.states)
                (moved,) = third.consumer.states  # of whichever the brokers chose
                assert moved.membership.generation > won[moved.source]
                assert moved.is_fresh(2)
                await until(
                    lambda: len(epochs(first) | epochs(second) | epochs(third)) == PARTITIONS
                )
        await until(lambda: len(first.consumer.states) == PARTITIONS)
        assert len(first.seen.assigned[-1]) == PARTITIONS
        assert PARTITIONS not in map(len, first.seen.revoked)


async def test_only_the_member_and_only_in_its_epoch_may_commit(
    kafka: Kafka, topic: str, member: Callable[[], Member]
) -> None:
    """Anything else is refused, and we say so."""
    await send(kafka, topic, 4)
    async with member() as only:
        await until(lambda: len(only.seen.records) == 4)
        now = only.held(0).membership
        coordinator = Coordinator(only.consumer._consumer._client, only.settings.group)
        group, one = only.settings.group, {Partition(topic, 0): Checkpoint(1, "text")}

        async def commits(member_id: str, epoch: int) -> bool:
            request = EpochCommitRequest(group, member_id, epoch, one)
            return bool(await send_commit(request, coordinator.send, coordinator.forget))

        with structlog.testing.capture_logs() as logs:
            assert not await commits(now.member_id, now.generation + 1)
            assert not await commits(now.member_id, now.generation - 1)
        assert [each["errors"] for each in logs] == [["StaleMemberEpochError"]] * 2
        assert not await commits("somebody-else", now.generation)
        assert not await commits("", -1)
        assert await committed(kafka, group, topic, 0) is None
        assert await commits(now.member_id, now.generation)
        assert await committed(kafka, group, topic, 0) == 1


async def test_ownership_is_proved_in_the_present_epoch(
    kafka: Kafka, topic: str, member: Callable[[], Member]
) -> None:
    """The base goes with it, and reaches the next owner; what has gone proves nothing."""
    await send(kafka, topic, 4)
    async with member() as first:
        await until(lambda: len(first.seen.records) == 4)
        old = {state.source: state for state in first.consumer.states}
        assert await first.commits.prove(first.held(3), 7)
        async with member() as second:
            await until(lambda: len(second.consumer.states) == PARTITIONS // 2)
            gone = [each for each in old if each in epochs(second)]
            assert not any([await first.commits.prove(old[each], 9) for each in gone])
            await until(lambda: first.consumer.generation == second.consumer.generation)
            assert all([await first.commits.prove(state, 9) for state in first.consumer.states])
            assert [state.base for state in second.consumer.states if state.source[1] == 3] == [7]


async def test_nothing_comes_through_librdkafka(
    kafka: Kafka, topic: str, member: Callable[[], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to pause before it knows where the log ends, so it asks for no record."""
    brought: list[object] = []
    monkeypatch.setattr("aril.worker.queue.membership.consumer._judge", brought.append)
    await send(kafka, topic, 40)
    async with member() as only:
        await until(lambda: len(only.seen.records) == 40)
        await send(kafka, topic, 40, start=40)
        await until(lambda: len(only.seen.records) == 80)
    assert brought == []
    assert all(only.offsets(each) == list(range(20)) for each in range(PARTITIONS))


async def test_a_replaced_member_reads_on_in_a_higher_epoch(
    kafka: Kafka, topic: str, member: Callable[[], Member]
) -> None:
    """It comes back under another name; what was open is read again."""
    await send(kafka, topic, 4)
    async with member() as only:
        await until(lambda: len(only.seen.records) == 4)
        before = only.held(0).membership
        await only.consumer.replace()
        await until(lambda: len(only.seen.records) == 8)
        after = only.held(0).membership
        assert after.generation > before.generation
        assert after.member_id != before.member_id


async def test_a_member_that_rejoins_has_all_anew_in_a_higher_epoch(
    kafka: Kafka, topic: str, member: Callable[[], Member]
) -> None:
    """It leaves and comes back by itself, as it does rather than begin twice in an epoch."""
    await send(kafka, topic, 4)
    async with member() as only:
        await until(lambda: len(only.seen.records) == 4)
        before = epochs(only)
        only.consumer.rejoin()
        await until(lambda: len(only.seen.records) == 8)
        assert all(epochs(only)[each] > before[each] for each in before)


@pytest.mark.slow  # brokers look for new topics each ten seconds
async def test_topics_that_appear_are_read_and_dead_letters_are_not(
    kafka: Kafka, topic: str, member: Callable[..., Member]
) -> None:
    """Brokers match the pattern; the reader learns of a topic when it is given some of it."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    own = [f"{topic}.{name}" for name in ("acme", "dlq", "beta")]
    await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in own[:2]])
    flags = {"jobs_topic": f"{topic}.*", "dlq_topic": own[1], "tenant_from": "topic"}
    for name in own[:2]:
        await send(kafka, name, 4)
    async with member(**flags) as only:
        await until(lambda: len(only.seen.records) == 4)
        await admin.create_topics([NewTopic(own[2], PARTITIONS, 1)])
        await admin.close()
        await send(kafka, own[2], 4)
        await until(lambda: len(only.seen.records) == 8)
        assert {each.source.topic for each in only.seen.records} == {own[0], own[2]}
        assert len(only.consumer.states) == 2 * PARTITIONS

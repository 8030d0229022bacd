"""Commits on a real broker: who may commit, what is kept beside the offset, who proves what."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

import pytest
from aiokafka import TopicPartition

from aril.worker.job import Partition
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commits import (
    Commits,
    commit_offsets,
    membership_of,
    parts_of,
)
from aril.worker.queue.done_list import METADATA_BYTES, encode
from aril.worker.queue.ledger import Checkpoint, Ledger
from tests.support.group_protocols import by_either_protocol, require_protocol
from tests.support.members import PARTITIONS, Member, committed, new_topic, send, until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from tests.support.brokers import Kafka

    Joins = Callable[[], Member]

pytestmark = pytest.mark.kafka


def keeps_metadata(kafka: Kafka) -> None:
    """Skip on the embedded broker, which drops what is committed beside the offset."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker drops commit metadata")


async def test_the_captured_generation_is_the_groups(kafka: Kafka, topic: str) -> None:
    """Pin the private attribute that the epoch and every commit lean on."""
    async with Member(kafka, topic) as member:
        await until(lambda: member.consumer.states)
        membership = member.consumer.states[0].membership
        assert membership.generation >= 0
        assert membership.member_id
        inner = member.consumer._consumer
        assert membership_of(inner, 9) == Membership(9, membership.generation, membership.member_id)


@by_either_protocol
async def test_a_commit_of_another_generation_or_member_is_refused(
    kafka: Kafka, topic: str, joins: Joins
) -> None:
    """The broker takes a commit under the present membership only, and ours says so honestly."""
    await send(kafka, topic, 4)
    async with joins() as member:
        await until(lambda: len(member.seen.records) == 4)
        now = member.consumer.states[0].membership
        speaker, group = member.consumer._member, member.settings.group
        source = Partition(topic, 0)
        stale = Membership(1, now.generation + 1, now.member_id)
        stranger = Membership(1, now.generation, "somebody-else")
        one = {source: Checkpoint(1, "")}
        assert not await speaker.commit(stale, one)
        assert not await speaker.commit(stranger, one)
        assert await committed(kafka, group, topic, 0) is None
        assert await speaker.commit(now, one)
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


@by_either_protocol
async def test_what_was_finished_beyond_the_position_does_not_come_again(
    kafka: Kafka, topic: str, joins: Joins
) -> None:
    """Two restarts on: the third owner gets what nobody finished, and only that."""
    keeps_metadata(kafka)
    await send(kafka, topic, 40)
    async with joins() as first:
        await until(lambda: len(first.seen.records) == 40)
        for offset in (0, 2, 3, 7):
            first.held(1).finish_offset(offset)
        first.held(2).finish_offset(9)
    async with joins() as second:
        await until(lambda: len(second.seen.records) == 40 - 5)
        assert second.offsets(1) == [1, 4, 5, 6, 8, 9]
        assert second.offsets(2) == [0, 1, 2, 3, 4, 5, 6, 7, 8]
        state = second.held(1)
        done = encode(1, [range(2, 4), range(7, 8)])
        assert state.to_commit() == (1, done)  # what the first one said on parting is over
        state.finish_offset(5)
        await second.consumer.commit()
        assert state.committed == (1, encode(1, [range(2, 4), range(5, 6), range(7, 8)]))
        assert state.to_commit() is None
    async with joins() as third:
        await until(lambda: len(third.seen.records) == 40 - 6)
        assert third.offsets(1) == [1, 4, 6, 8, 9]
        await send(kafka, topic, 4, start=40)
        await until(lambda: len(third.seen.records) == 44 - 6)
        for offset in (1, 4, 6, 8, 9, 10):
            third.held(1).finish_offset(offset)
        await third.consumer.commit()
        assert third.held(1).committed == (11, "")


@by_either_protocol
@pytest.mark.parametrize("text", ["damaged", "a" * 4_096, encode(0, [range(1, 9)])])
async def test_unreadable_metadata_is_the_empty_list(
    kafka: Kafka, topic: str, joins: Joins, text: str
) -> None:
    """What others left beside the offset, or a list of another position: all is delivered."""
    await send(kafka, topic, 40)
    async with joins() as first:
        await until(lambda: len(first.seen.records) == 40)
        first.held(1).finish_offset(0)
        await first.consumer.commit()  # so that it has nothing to say when it stops
        speaker = first.consumer._member
        left = {Partition(topic, 1): Checkpoint(1, text)}
        assert await speaker.commit(first.held(1).membership, left)
    async with joins() as second:
        await until(lambda: len(second.seen.records) == 39)
        assert second.offsets(1) == list(range(1, 10))


@by_either_protocol
async def test_committed_metadata_is_read_in_one_request(
    kafka: Kafka, topic: str, joins: Joins
) -> None:
    """Pin the calls that give offset and metadata; unknown partitions are left out."""
    await send(kafka, topic, 8)
    async with joins() as member:
        await until(lambda: len(member.seen.records) == 8)
        speaker = member.consumer._member
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        assert await speaker.committed(partitions) == {}
        assert await speaker.committed([]) == {}
        some = {Partition(topic, number): Checkpoint(number, f"text {number}") for number in (1, 2)}
        assert await speaker.commit(member.held(1).membership, some)
        found = await speaker.committed(partitions)
        assert {each.partition: offset for each, (offset, _) in found.items()} == {1: 1, 2: 2}
        texts = {each.partition: text for each, (_, text) in found.items()}
        kept = kafka.kind != "embedded"
        assert texts == ({1: "text 1", 2: "text 2"} if kept else {1: "", 2: ""})


@by_either_protocol
async def test_the_largest_list_is_taken_by_the_broker(
    kafka: Kafka, topic: str, joins: Joins
) -> None:
    """4,096 bytes of metadata pass, for each of several partitions in one commit."""
    await send(kafka, topic, 4)
    async with joins() as member:
        await until(lambda: len(member.seen.records) == 4)
        text = encode(0, [range(at, at + 1) for at in range(1, 10_000, 2)])
        speaker = member.consumer._member
        full = {Partition(topic, number): Checkpoint(0, text) for number in range(PARTITIONS)}
        assert await speaker.commit(member.held(0).membership, full)


async def test_no_request_commits_more_than_a_broker_takes() -> None:
    """A thousand full lists go out as several requests, each partition in one of them."""
    membership = Membership(1, 1, "m")
    states = [PartitionState(Partition("jobs", each), membership, 0) for each in range(1_000)]
    wanted = {state: Checkpoint(0, "x" * METADATA_BYTES) for state in states}
    parts = [*parts_of(wanted)]
    assert [state for part in parts for state in part] == states
    assert max(len(part) for part in parts) * METADATA_BYTES < 1 << 20
    assert len(parts) < 10
    few = {state: Checkpoint(0, "") for state in states}
    assert [*parts_of(few)] == [few]


@by_either_protocol
@pytest.mark.slow  # three hundred partitions
async def test_more_than_a_broker_takes_at_once_is_committed_in_parts(
    kafka: Kafka, group_protocol: str
) -> None:
    """The lists of 300 partitions are 1.2 MB, more than a request may commit."""
    require_protocol(kafka, group_protocol)
    async with (
        new_topic(kafka, 300) as topic,
        Member(kafka, topic, group_protocol=group_protocol) as member,
    ):
        await until(lambda: len(member.consumer.states) == 300)
        states = member.consumer.states
        ledger = Ledger(0, [range(at, at + 1) for at in range(1, 8_000, 2)])
        assert len(ledger.metadata()) > 4_000
        for state in states:
            state.ledger = ledger
        await member.consumer.commit()
        assert {state.committed for state in states} == {ledger.checkpoint()}


async def test_nothing_more_is_sent_behind_a_part_that_was_refused(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker would refuse the other parts, too, or not answer them either."""
    monkeypatch.setattr("aril.worker.queue.commits.COMMIT_BYTES", 1)
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.consumer.states) == PARTITIONS)
        states, asked = member.consumer.states, list[bool]()
        monkeypatch.setattr(member.commits, "_told", lambda _, taken: asked.append(taken))
        for state in states:
            state.read(0)
            state.finish_offset(0)
            state.membership = dataclasses.replace(state.membership, member_id="a-ghost")
        await member.consumer.commit()
        assert asked == [False]


@by_either_protocol
async def test_a_commit_says_of_which_partitions_it_was_taken(
    kafka: Kafka, topic: str, joins: Joins
) -> None:
    """One may be refused alone, as where its topic was just deleted."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker takes commits of topics that are not there")
    async with joins() as member:
        await until(lambda: len(member.consumer.states) == PARTITIONS)
        speaker = member.consumer._member
        gone, there = Partition(f"{topic}-gone", 0), Partition(topic, 1)
        both = {each: Checkpoint(1, "") for each in (gone, there)}
        assert await speaker.commit(member.held(1).membership, both) == {there}


class Refusing:
    """A membership whose broker takes no commit of partition 0."""

    def as_whom(self, membership: Membership) -> Membership:
        """Return the same."""
        return membership

    async def commit(
        self, _: Membership, checkpoints: Mapping[Partition, Checkpoint]
    ) -> Collection[Partition]:
        """Take all the others."""
        return {each for each in checkpoints if each.partition}


async def test_a_partition_that_is_refused_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Neither the one beside it in a request nor those of the requests behind that."""
    monkeypatch.setattr("aril.worker.queue.commits.COMMIT_BYTES", 1_000)  # two of them
    states = [PartitionState(Partition("jobs", n), Membership(1, 1, "m"), 0) for n in range(6)]
    for state in states:
        state.read(0)
        state.finish_offset(0)
    commits = Commits()
    commits.speak_through(Refusing())
    await commits.commit(lambda: states)
    assert [state.committed is not None for state in states] == [False, *[True] * 5]


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
        assert await first.commits.prove(old[1], 0)
        assert await first.commits.prove(old[1], 0)
        assert old[1].committed == (1, "")
        assert await committed(kafka, group, topic, 1) == 1
        async with Member(kafka, topic) as second:
            await until(lambda: len(second.consumer.states) == PARTITIONS // 2)
            await until(lambda: len(first.consumer.states) == PARTITIONS // 2)
            for state in old.values():
                assert not await first.commits.prove(state, 0)
                assert not await second.commits.prove(state, 0)
            await until(lambda: len(second.seen.records) >= 3)
            assert all([await second.commits.prove(state, 0) for state in second.consumer.states])


@by_either_protocol
async def test_a_base_is_the_next_owners(kafka: Kafka, topic: str, joins: Joins) -> None:
    """It is committed with the proof, kept by the commits that follow, and read at assignment."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker keeps no metadata")
    await send(kafka, topic, 4)
    async with joins() as member:
        await until(lambda: len(member.seen.records) == 4)
        assert await member.commits.prove(member.held(1), 7)
        member.held(1).finish_offset(0)
        await member.consumer.commit()
    async with joins() as member:
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
        assert not await member.commits.prove(state, 0)
        state.membership = now
        state.revoked = True
        assert not await member.commits.prove(state, 0)
        state.revoked = False
        assert await member.commits.prove(state, 0)


@by_either_protocol
async def test_what_is_to_be_committed_is_asked_for_when_it_is_its_turn(
    joins: Joins,
) -> None:
    """A commit that waited for another is not sent for partitions that are gone meanwhile."""
    async with joins() as member:
        await until(lambda: member.seen.assigned)
        states = member.consumer.states
        async with member.commits._lock:
            waiting = asyncio.create_task(member.consumer.commit())
            await asyncio.sleep(0)
            member.consumer._states = {}
            for state in states:
                state.read(0)
                state.finish_offset(0)
        await waiting
        assert all(state.committed is None for state in states)

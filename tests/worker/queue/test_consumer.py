"""The consumer on a real broker: assignments, redelivery, pauses."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

from aril.worker.queue.lag import lags_of
from tests.support.group_protocols import by_either_protocol
from tests.support.members import PARTITIONS, Member, committed, send, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.brokers import Kafka

    Joins = Callable[[], Member]

pytestmark = pytest.mark.kafka


@by_either_protocol
async def test_finished_offsets_are_committed_and_the_rest_comes_again(
    kafka: Kafka, topic: str, joins: Joins
) -> None:
    """A second owner gets what the first one did not finish, older than its assignment."""
    await send(kafka, topic, 12)
    async with joins() as first:
        await until(lambda: len(first.seen.records) == 12)
        state = first.held(1)
        state.finish_offset(0)
        await first.consumer.commit()
        assert state.committed is not None
        assert state.committed.position == 1
    async with joins() as second:
        await until(lambda: len(second.seen.records) == 11)
        mine = [each.offset for each in second.seen.records if each.source.partition == 1]
        assert mine == [1, 2]
        assert all(
            each.offset < state.fresh_from
            for state in second.consumer.states
            for each in second.seen.records
            if each.source == state.source
        )
        await send(kafka, topic, 4, start=12)
        await until(lambda: len(second.seen.records) == 15)
        fresh = {
            each.offset >= state.fresh_from
            for state in second.consumer.states
            for each in second.seen.records[11:]
            if each.source == state.source
        }
        assert fresh == {True}


async def test_a_rebalance_gives_new_states_and_redelivers_what_is_open(
    kafka: Kafka, topic: str
) -> None:
    """Two members share the partitions; what was open is read again under the new assignment.

    By the classic protocol; by the other one what stays is not touched (membership/test_epochs.py).
    """
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


@by_either_protocol
async def test_pauses_survive_a_rebalance(kafka: Kafka, topic: str, joins: Joins) -> None:
    """A full backlog reads nothing more, also after a rebalance, and goes on when it has room."""
    async with joins() as first:
        first.seen.full = True
        await until(lambda: first.consumer.states)
        async with joins() as second:
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


@by_either_protocol
async def test_lag_grows_while_nothing_more_is_read(kafka: Kafka, topic: str, joins: Joins) -> None:
    """Nothing is fetched of a partition that rests, so the brokers are asked."""
    async with joins() as member:
        await send(kafka, topic, 4)
        await until(lambda: len(member.seen.records) == 4)
        member.seen.full = True
        await until(lambda: len(member.consumer._consumer.paused()) == PARTITIONS)
        await send(kafka, topic, 8, start=4)
        logs = await member.consumer.logs()
        assert logs is not None
        assert set(logs.values()) == {range(3)}
        lags = lags_of(member.consumer.states, logs)
        assert sum(lag.unread for lag in lags.values()) == 12 - len(member.seen.records)
        assert sum(lag.unfinished for lag in lags.values()) == 12


@by_either_protocol
async def test_a_crowded_partition_rests_and_its_neighbours_do_not(
    kafka: Kafka, topic: str, joins: Joins
) -> None:
    """Nothing more is read where the done list is nearly full, until the oldest are done."""
    async with joins() as member:
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


@by_either_protocol
async def test_who_leaves_says_what_goes_on_with_it(kafka: Kafka, topic: str, joins: Joins) -> None:
    """Its last commit says so, once; what ends there afterwards is no commit any more."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker keeps no metadata")
    await send(kafka, topic, 8)
    async with joins() as first, joins() as second:
        await until(lambda: len(first.consumer.states) == PARTITIONS // 2)
        await until(lambda: len(second.consumer.states) == PARTITIONS // 2)
        state = next(iter(first.consumer.states))
        await until(lambda: state.ledger is not None and state.ledger.next_offset >= 2)
        first.consumer.leave({state.source: [1]}, 60.0)
        await until(lambda: len(second.consumer.states) == PARTITIONS)
        [heir] = [each for each in second.consumer.states if each.source == state.source]
        left = (heir.elsewhere_until(1) or 0.0) - time.monotonic()
        assert 0.0 < left <= 60.0
        assert heir.elsewhere_until(0) is None
        before = await committed(kafka, first.settings.group, topic, state.source.partition)
        state.finish_offset(0)
        await first.consumer.commit()
        await first.consumer.stop()
        now = await committed(kafka, first.settings.group, topic, state.source.partition)
        assert now == before


@by_either_protocol
async def test_a_partition_that_is_added_is_noticed(
    kafka: Kafka, topic: str, joins: Joins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody joins or leaves: it is read when the metadata is looked at again."""
    monkeypatch.setattr("aril.worker.queue.member.METADATA_AGE_MS", 500)
    async with joins() as member:
        await until(lambda: len(member.consumer.states) == PARTITIONS)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
        await admin.start()
        await admin.create_partitions({topic: NewPartitions(PARTITIONS + 1)})
        await admin.close()
        await until(lambda: len(member.consumer.states) == PARTITIONS + 1)

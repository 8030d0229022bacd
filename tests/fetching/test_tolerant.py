"""Batches that aiokafka cannot unpack, on a real broker: their neighbours never notice."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors

from aril.fetching.packed import MAX_UNPACKED_BYTES
from aril.fetching.place import Place
from aril.fetching.raw import fetch_batch
from aril.kafka import KafkaTransport
from aril.worker.job import Partition
from aril.worker.queue import raw_batch
from aril.worker.queue.raw_batch import BATCH, RECORD
from aril.worker.settings import load_settings
from aril.worker.takeover.readback import KafkaLogReader, LogRecord
from tests.support.members import Member, send, until
from tests.support.raw_records import ODD_NAME, append_batch, batch, record, sized

if TYPE_CHECKING:
    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka

GZIP = 1


async def append_odd(kafka: Kafka, topic: str) -> None:
    """Fill the first partition: a plain record, a batch with an odd one in its middle, a plain one.

    The odd record has offset 2 of 0 to 4.
    """
    await send(kafka, topic, 1)
    odd = record(1, b"k", b"odd", [(ODD_NAME, b"1")])
    raw = batch([record(0, None, b"before"), odd, record(2, None, b"behind")])
    assert await append_batch(kafka.bootstrap, topic, 0, raw) == 1
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    await producer.send_and_wait(topic, b"last", partition=0)
    await producer.stop()


async def test_aiokafka_cannot_read_it(kafka: Kafka, topic: str) -> None:
    """Pins why all this is here. Should this fail, the wrapping can go."""
    await append_odd(kafka, topic)
    reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest")
    await reader.start()
    try:
        reader.assign([TopicPartition(topic, 0)])
        with pytest.raises((UnicodeDecodeError, errors.CorruptRecordException)):
            await asyncio.wait_for(reader.getmany(timeout_ms=10_000), 20)
    finally:
        await reader.stop()


async def test_jobs_beside_an_odd_record_come_in_order(kafka: Kafka, topic: str) -> None:
    """All of the partition is handed out, the odd record included; other partitions do not wait."""
    await append_odd(kafka, topic)
    async with Member(kafka, topic) as member:
        await until(lambda: member.offsets(0) == [0, 1, 2, 3, 4])
        await send(kafka, topic, 8)
        await until(lambda: len(member.seen.records) == 5 + 8)
        assert not member.seen.unreadable
        values = [each.value for each in member.seen.records if each.source.partition == 0]
        assert values[:5] == [b"0", b"before", b"odd", b"behind", b"last"]
        assert member.offsets(0) == list(range(7))
        assert member.offsets(1) == [0, 1]


async def test_what_cannot_be_read_is_told_and_holds_the_position(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its offset is finished by whoever put it aside; until then each owner meets it again."""
    read = raw_batch._headers

    def fails(found: bytearray, at: int) -> Any:
        if found[at:] != b"\0":
            raise ValueError("broken")
        return read(found, at)

    monkeypatch.setattr(raw_batch, "_headers", fails)
    await append_odd(kafka, topic)
    async with Member(kafka, topic) as first:
        await until(lambda: first.offsets(0) == [0, 1, 3, 4])
        [part] = first.seen.unreadable
        assert (part.record.offset, part.reason, part.why) == (2, RECORD, "broken")
        state = first.held(0)
        for offset in first.offsets(0):
            state.finish_offset(offset)
        assert state.position == 2
    async with Member(kafka, topic) as second:
        await until(lambda: len(second.seen.unreadable) == 1)
        assert second.offsets(0) == []
        state = second.held(0)
        state.finish_offset(2)
        await until(lambda: state.position == 5)


async def test_readers_of_replies_leave_it_out(kafka: Kafka, topic: str) -> None:
    """Client and take-over read on behind a batch that nobody can read."""
    await append_odd(kafka, topic)
    transport = KafkaTransport(kafka.bootstrap)
    await transport.open()
    try:
        transport.follow(Place(topic, 0), 0)
        polled: list[bytes | None] = []
        async with asyncio.timeout(30):
            while b"last" not in polled:
                polled += [each.value for each in await transport.poll()]
    finally:
        await transport.close()
    reader = KafkaLogReader(load_settings(flags={"bootstrap": kafka.bootstrap}).settings, "t")
    found: list[LogRecord] = []
    await reader.read(Partition(topic, 0), 0, 4, found.append)
    await reader.stop()
    assert polled == [each.value for each in found] == [b"0", b"before", b"last"]


async def test_a_batch_that_would_unpack_to_too_much_is_put_aside(kafka: Kafka, topic: str) -> None:
    """Nobody unpacks it: not the worker, not who reads replies; both read on behind it."""
    large = sized(record(0, None, bytes(MAX_UNPACKED_BYTES)))
    raw = batch([record(0, None, b"")], attributes=GZIP, packed=gzip.compress(large, 1))
    await send(kafka, topic, 1)
    await append_batch(kafka.bootstrap, topic, 0, raw)
    await append_batch(kafka.bootstrap, topic, 0, batch([record(0, None, b"last")]))
    async with Member(kafka, topic) as member:
        await until(lambda: member.offsets(0) == [0, 2])
        await until(lambda: len(member.seen.unreadable) == 1)
        [part] = member.seen.unreadable
        assert (part.record.offset, part.reason) == (1, BATCH)
        assert part.record.value is not None
        assert len(part.record.value) == len(raw)
    reader = KafkaLogReader(load_settings(flags={"bootstrap": kafka.bootstrap}).settings, "t")
    found: list[LogRecord] = []
    await reader.read(Partition(topic, 0), 0, 2, found.append)
    await reader.stop()
    assert [each.value for each in found] == [b"0", b"last"]


async def test_a_batch_is_fetched_whole_and_alone(kafka: Kafka, topic: str) -> None:
    """Pins aiokafka's private client: the batch that holds an offset, and not the next one."""
    first = batch([record(0, None, b"x" * 100_000), record(1, None, b"y")])
    await append_batch(kafka.bootstrap, topic, 0, first)
    await append_batch(kafka.bootstrap, topic, 0, batch([record(0, None, b"z")]))
    reader = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap)
    await reader.start()
    try:
        where = TopicPartition(topic, 0)
        reader.assign([where])
        await reader.seek_to_beginning(where)
        raw = await fetch_batch(reader, where, 1)
        assert len(raw) == len(first)
        parts = raw_batch.read_batch(Partition(topic, 0), raw, 1).parts
        assert [each.record.value for each in parts] == [b"y"]
    finally:
        await reader.stop()

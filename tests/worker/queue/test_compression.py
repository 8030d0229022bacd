"""What producers pack is read: each codec of Kafka, by the jobs consumer and by a client."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from aiokafka import AIOKafkaProducer

from aril.fetching.place import Place
from aril.kafka import KafkaTransport
from tests.support.members import PARTITIONS, Member, until

if TYPE_CHECKING:
    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka

CODECS = ("gzip", "snappy", "lz4", "zstd")


def packed(codec: str) -> bytes:
    """Return a value that grows smaller when it is packed."""
    return f"{codec} {uuid.uuid4().hex} ".encode() * 64


async def append_packed(kafka: Kafka, topic: str) -> list[bytes]:
    """Append a record in each codec to the first partition, between plain ones; return values."""
    sent: list[bytes] = []
    for codec in (None, *CODECS, None):
        producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, compression_type=codec)
        await producer.start()
        sent.append(packed(codec or "plain"))
        await producer.send_and_wait(topic, sent[-1], partition=0)
        await producer.stop()
    return sent


async def test_every_codec_is_read_by_workers(kafka: Kafka, topic: str) -> None:
    """Records packed in any way come in order, each as it was before."""
    sent = await append_packed(kafka, topic)
    async with Member(kafka, topic) as member:
        await until(lambda: len(member.seen.records) == len(sent))
    assert [each.value for each in member.seen.records] == sent


async def test_every_codec_is_read_by_clients(kafka: Kafka, topic: str) -> None:
    """The same in a reply topic that an operator lets be packed."""
    sent = await append_packed(kafka, topic)
    transport = KafkaTransport(kafka.bootstrap)
    await transport.open()
    assert await transport.partitions(topic) == PARTITIONS
    try:
        transport.follow(Place(topic, 0), 0)
        found: list[bytes | None] = []
        while len(found) < len(sent):
            found += [each.value for each in await transport.poll()]
    finally:
        await transport.close()
    assert found == sent

"""Batches as no client of ours would write them, appended byte by byte as a broker takes them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.util import calc_crc32c, encode_varint

if TYPE_CHECKING:
    from collections.abc import Sequence

_START: Final = struct.Struct(">qiib")
_NOT_LEADER: Final = 6
_REST: Final = struct.Struct(">hiqqqhii")
ODD_NAME: Final = b"\xff\xfe-key"  # of a header: bytes that are no text


def varint(number: int) -> bytes:
    """Return a number as records hold it."""
    out = bytearray()
    encode_varint(number, out.append)
    return bytes(out)


def sized(data: bytes | None) -> bytes:
    """Return bytes behind their length."""
    return varint(-1) if data is None else varint(len(data)) + data


def record(
    delta: int, key: bytes | None, value: bytes | None, headers: Sequence[tuple[bytes, bytes]] = ()
) -> bytes:
    """Return one record without its length."""
    told = b"".join(sized(name) + sized(value) for name, value in headers)
    return (
        b"\0" + varint(0) + varint(delta) + sized(key) + sized(value) + varint(len(headers)) + told
    )


def batch(
    records: Sequence[bytes], *, base: int = 0, attributes: int = 0, packed: bytes | None = None
) -> bytes:
    """Return a batch of records, each with the next offset; `packed` stands in for all of them."""
    body = b"".join(sized(each) for each in records) if packed is None else packed
    count = len(records)
    rest = _REST.pack(attributes, count - 1, 1_000, 2_000, -1, -1, -1, count) + body
    crc = struct.pack(">I", calc_crc32c(rest))
    return _START.pack(base, len(rest) + 9, -1, 2) + crc + rest


async def append_batch(bootstrap: str, topic: str, partition: int, raw: bytes) -> int:
    """Have the broker take a batch; return the offset that it got."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    try:
        await producer.partitions_for(topic)
        leader = producer.client.cluster.leader_for_partition(TopicPartition(topic, partition))
        request: Any = ProduceRequest(None, -1, 10_000, [(topic, [(partition, raw)])])
        code = _NOT_LEADER
        while code == _NOT_LEADER:  # of a topic that was made a moment ago
            response = await producer.client.send(leader, request)
            ((_, ((_, code, offset, *_),)),) = response.topics
    finally:
        await producer.stop()
    assert code == 0, f"the broker refused it: {code}"
    placed: int = offset
    return placed

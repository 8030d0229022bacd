"""Fetching one whole batch as it lies in the log. Leans on private parts of aiokafka.

What is private is pinned by tests/fetching/test_tolerant.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiokafka import errors
from aiokafka.protocol.fetch import FetchRequest

from aril.fetching.layout import size_of

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

FETCH_WAIT_MS: Final = 100


class EmptyFetchError(Exception):
    """No batch is there."""


async def fetch_batch(consumer: AIOKafkaConsumer, where: TopicPartition, offset: int) -> bytes:
    """Return the raw bytes of the batch that holds an offset, or the next one behind it.

    They are fewer than it says to have where the log has no more. Raises KafkaError, and
    EmptyFetchError.
    """
    raw = await _fetch(consumer, where, offset, 1)  # brokers give a whole batch, however large
    size = size_of(raw)
    if size is not None and len(raw) < size:
        raw = await _fetch(consumer, where, offset, size)
    if not raw:
        raise EmptyFetchError
    return raw[:size]


async def _fetch(
    consumer: AIOKafkaConsumer, where: TopicPartition, offset: int, max_bytes: int
) -> bytes:
    client, fetcher = consumer._client, consumer._fetcher  # noqa: SLF001 - see above
    leader = client.cluster.leader_for_partition(where)
    if leader is None or leader < 0:
        raise errors.LeaderNotAvailableError
    asked = [(where.topic, [(where.partition, offset, max_bytes)])]
    level = fetcher._isolation_level  # noqa: SLF001 - see above
    response = await client.send(leader, FetchRequest(FETCH_WAIT_MS, 1, max_bytes, level, asked))
    ((_, ((_, code, *_, raw),)),) = response.topics
    if (kind := errors.for_code(code)) is not errors.NoError:
        raise kind
    return raw or b""

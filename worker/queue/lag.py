"""How far each partition is behind the end of its log, asked of the brokers now and then.

What a fetch says of a log's end is not enough: nothing is fetched of a partition that rests since
too much waits, which is when its lag grows.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka import TopicPartition, errors

from worker.job import Partition
from worker.observe.metrics import Lag

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from aiokafka import AIOKafkaConsumer

    from worker.observe.metrics import Metrics
    from worker.queue.assignment import PartitionState

LOOK_SECONDS: Final = 15.0
ANSWER_SECONDS: Final = 10.0


async def watch_lag(
    ends: Callable[[], Awaitable[dict[Partition, int] | None]],
    held: Callable[[], Iterable[PartitionState]],
    metrics: Metrics,
) -> None:
    """Look until cancelled. Where no broker tells the logs' ends, what was known stays."""
    while True:
        found = await ends()
        if found is not None:
            metrics.behind(lags_of(held(), found))
        await asyncio.sleep(LOOK_SECONDS)


def lags_of(
    held: Iterable[PartitionState], ends: Mapping[Partition, int]
) -> dict[tuple[str, int], Lag]:
    """Return how far each partition is behind; one of which nothing is known yet is left out."""
    found: dict[tuple[str, int], Lag] = {}
    for state in held:
        ledger, end = state.ledger, ends.get(state.source)
        if ledger is not None and end is not None:
            unread = max(0, end - ledger.next_offset)
            found[state.source] = Lag(unfinished=ledger.open + unread, unread=unread)
    return found


async def ends_of(
    consumer: AIOKafkaConsumer, held: Iterable[Partition]
) -> dict[Partition, int] | None:
    """Ask for the ends of logs; None where no broker answers, or a rebalance comes."""
    places = [TopicPartition(*each) for each in held]
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            ends = await consumer.end_offsets(places) if places else {}
    except (errors.KafkaError, TimeoutError):
        return None
    return {Partition(each.topic, each.partition): end for each, end in ends.items()}

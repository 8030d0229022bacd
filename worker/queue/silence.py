"""Looks after a consumer that may stop without a word: asks how far it is, replaces it once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aiokafka import errors

from worker.job import Partition
from worker.observe.logs import get_logger
from worker.queue.watchdog import Progress, Watchdog

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aiokafka import AIOKafkaConsumer, TopicPartition

log = get_logger(__name__)

WATCH_SECONDS = 15.0
SILENT_SECONDS = 60.0
ANSWER_SECONDS = 10.0


class ConsumerSilentError(Exception):
    """No records come although there are some; the message is one line."""


class Watched(Protocol):
    """What is looked after."""

    async def progress(self) -> Mapping[Partition, Progress]:
        """Return how far each partition is that should be read."""

    async def replace(self) -> None:
        """Join the group with a new consumer in place of the present one."""


async def watch(consumer: Watched) -> None:
    """Look after a consumer until cancelled. One that fell silent is replaced.

    Raises ConsumerSilentError when that did not help: a new process may.
    """
    dog = Watchdog(patience=SILENT_SECONDS)
    replaced = False
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        silent = dog.observe(await consumer.progress(), now=asyncio.get_running_loop().time())
        if not silent:
            replaced = replaced and dog.behind  # cured once nothing is left to be read
            continue
        log.error("consumer_silent", partitions=[list(each) for each in silent])
        if replaced:
            raise ConsumerSilentError("the consumer gets no records, and a new one gets none")
        await consumer.replace()
        dog.forget()
        replaced = True


async def progress_of(
    consumer: AIOKafkaConsumer, reading: Collection[TopicPartition]
) -> dict[Partition, Progress]:
    """Ask how far partitions are read and how long they are; empty when nothing is to be learned.

    That is while no broker answers, or when a rebalance comes.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            ends = await consumer.end_offsets(reading)
            return {
                Partition(each.topic, each.partition): Progress(
                    await consumer.position(each), ends[each]
                )
                for each in reading
            }
    except (errors.KafkaError, TimeoutError):
        return {}

"""Looks after a consumer that may stop without a word: notices it, replaces it once.

aiokafka has fallen silent before (#1037, #847, #712): member of the group, heartbeats on time,
and no record any more. What cannot be explained is a log that goes on behind our position while
nothing comes and nothing is paused.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiokafka import TopicPartition, errors

from aril.fetching.bounds import log_bounds
from aril.fetching.place import Place
from aril.worker.job import Partition
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from aiokafka import AIOKafkaConsumer

log = get_logger(__name__)

WATCH_SECONDS = 15.0
SILENT_SECONDS = 60.0
# While others are read a partition may have to wait: one of a thousand, behind a backlog.
TURNS = 10
ANSWER_SECONDS = 10.0


class ConsumerSilentError(Exception):
    """No records come although there are some; the message is one line."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading a partition is, as seen from the outside."""

    position: int  # next offset to be read
    end: int  # of the log, asked of the broker and not of the consumer


class Watchdog:
    """Judges one consumer by how its positions move. Pure; times are of any monotonic clock."""

    def __init__(self, *, patience: float) -> None:
        """Wait `patience` seconds before a silence counts, ten times that while others are read."""
        self._patience = patience
        self._positions: dict[Partition, int] = {}  # at the last look
        self._moved_at = -math.inf  # when any was last seen to have moved
        self._still: dict[Partition, tuple[int, float]] = {}  # position, and since when

    def observe(self, seen: Mapping[Partition, Progress], *, now: float) -> list[Partition]:
        """Take note of the partitions that should be read; return those that have fallen silent.

        A partition that is left out (paused, lost) begins anew when it is there again.
        """
        known = self._positions
        if any(each.position > known.get(where, each.position) for where, each in seen.items()):
            self._moved_at = now
        self._positions = {where: each.position for where, each in seen.items()}
        others = now - self._moved_at < self._patience
        patience = self._patience * (TURNS if others else 1)
        still: dict[Partition, tuple[int, float]] = {}
        silent = []
        for partition, progress in seen.items():
            if progress.position >= progress.end:
                continue
            position, since = self._still.get(partition, (progress.position, now))
            if position != progress.position:
                since = now
            still[partition] = (progress.position, since)
            if now - since >= patience:
                silent.append(partition)
        self._still = still
        return silent

    @property
    def behind(self) -> bool:
        """Whether the last look saw records that were not read yet."""
        return bool(self._still)

    def forget(self) -> None:
        """Begin anew, with another consumer."""
        self._still.clear()
        self._positions.clear()
        self._moved_at = -math.inf


async def watch(
    progress: Callable[[], Awaitable[Mapping[Partition, Progress]]],
    replace: Callable[[], Awaitable[None]],
) -> None:
    """Look after a consumer until cancelled. One that fell silent is replaced.

    `progress` tells how far each partition is that should be read; `replace` joins the group with a
    new consumer in place of the present one. Raises ConsumerSilentError when that
    did not help: a new process may.
    """
    dog = Watchdog(patience=SILENT_SECONDS)
    replaced = False
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        silent = dog.observe(await progress(), now=asyncio.get_running_loop().time())
        if not silent:
            replaced = replaced and dog.behind  # cured once nothing is left to be read
            continue
        log.error("consumer_silent", partitions=[list(each) for each in silent])
        if replaced:
            raise ConsumerSilentError("the consumer gets no records, and a new one gets none")
        await replace()
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
            logs = await log_bounds(
                consumer._client,  # noqa: SLF001 - aiokafka's own ends are not all true
                (Place(each.topic, each.partition) for each in reading),
            )
            return {
                Partition(*place): Progress(
                    await consumer.position(TopicPartition(*place)), log.stop
                )
                for place, log in logs.items()
            }
    except (errors.KafkaError, TimeoutError):
        return {}

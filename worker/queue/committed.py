"""Where an assignment begins: how long each log is, what was finished of it, what is gone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka import errors

from aril.fetching.bounds import log_bounds
from aril.fetching.place import Place
from aril.worker.observe.logs import get_logger
from aril.worker.queue.commit_text import done_list_of
from aril.worker.queue.done_list import open_below

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiokafka import AIOKafkaConsumer, TopicPartition

    from aril.worker.queue.ledger import Checkpoint

    Committed = Callable[[Sequence[TopicPartition]], Awaitable[dict[TopicPartition, Checkpoint]]]

log = get_logger(__name__)

ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Positions:
    """What the broker knows of the partitions of an assignment."""

    ends: dict[TopicPartition, int]
    committed: dict[TopicPartition, Checkpoint] = field(default_factory=dict)
    lost: dict[TopicPartition, int] = field(default_factory=dict)  # deleted before they were done
    first: dict[TopicPartition, int] = field(default_factory=dict)  # offset of the log

    def start(self, each: TopicPartition) -> int:
        """Return the offset that reading begins with."""
        committed = self.committed.get(each)
        return self.first.get(each, 0) if committed is None else committed.position


async def positions_of(
    consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition], committed_of: Committed
) -> Positions | None:
    """Read the logs' ends and what is committed, and look for jobs that retention deleted.

    None where the brokers do not answer. No job of these partitions may be begun then, and nothing
    committed: with what is committed goes the base of epochs, and a commit would write it away.
    """
    if not partitions:
        return Positions({})
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            bounds = await log_bounds(
                consumer._client,  # noqa: SLF001 - aiokafka's own ends are not all true
                (Place(each.topic, each.partition) for each in partitions),
            )
            committed = await committed_of(partitions)
    except (errors.KafkaError, TimeoutError) as error:
        log.warning("offsets_unknown", error=type(error).__name__)
        return None
    logs = {each: bounds[Place(each.topic, each.partition)] for each in partitions}
    lost = {
        each: count
        for each, checkpoint in committed.items()
        if (count := open_below(logs[each].start, checkpoint.position, done_list_of(checkpoint)))
    }
    ends = {each: log.stop for each, log in logs.items()}
    return Positions(ends, committed, lost, {each: log.start for each, log in logs.items()})

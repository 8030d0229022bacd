"""Which partitions rest: worked out before each poll, as a rebalance forgets every pause."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from aiokafka import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiokafka import AIOKafkaConsumer, TopicPartition


def apply_pauses(consumer: AIOKafkaConsumer, rests: Callable[[TopicPartition], bool]) -> None:
    """Pause the assigned partitions that are to rest, and resume those that are not."""
    paused = consumer.paused()
    wanted = {each for each in consumer.assignment() if rests(each)}
    with contextlib.suppress(errors.IllegalStateError):  # revoked since it was listed
        if wanted - paused:
            consumer.pause(*(wanted - paused))
        if paused - wanted:
            consumer.resume(*(paused - wanted))

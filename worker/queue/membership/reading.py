"""Reads partitions that come and go one by one, by an aiokafka consumer that is no member.

aiokafka's ``assign`` replaces all partitions and forgets positions and pauses; what had been
fetched ahead is fetched again. So the others' positions are carried over here, in one go: between
the steps nothing is awaited, and ``getmany`` returns nothing of which the position was not taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka import AIOKafkaConsumer, TopicPartition


class Reading:
    """What a consumer reads."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self._starts: dict[TopicPartition, int] = {}

    def begin(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these as well, from these offsets on."""
        self._assign(self._positions() | dict(starts))

    def end(self, partitions: Iterable[TopicPartition]) -> None:
        """Read these no longer."""
        gone = set(partitions)
        if gone & self._starts.keys():
            left = self._positions()
            self._assign({each: left[each] for each in left if each not in gone})

    def _positions(self) -> dict[TopicPartition, int]:
        """Return how far each was handed out; from its start again while it is being looked up."""
        return {
            each: _position(self._consumer, each, start) for each, start in self._starts.items()
        }

    def _assign(self, starts: dict[TopicPartition, int]) -> None:
        self._starts = starts
        self._consumer.assign(list(starts))
        for each, offset in starts.items():
            self._consumer.seek(each, offset)


def _position(consumer: AIOKafkaConsumer, where: TopicPartition, start: int) -> int:
    """Return the next offset to be handed out, `start` while aiokafka looks for one."""
    # ``position`` waits, and would let others in between; test_reading.py pins this.
    state = consumer._subscription.subscription.assignment.state_value(where)  # noqa: SLF001
    return state.position if state.has_valid_position else start

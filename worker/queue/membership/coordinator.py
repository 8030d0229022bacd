"""The group's coordinator, asked by a client that is no member by aiokafka's own doing.

aiokafka's coordinator cannot be had beside partitions that are assigned by hand and change: while
it looks for its broker it may meet an assignment that is over, and ends the consumer for it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition, errors
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.commit import OffsetFetchRequest

from aril.worker.queue.ledger import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterable

_MOVED = (errors.NotCoordinatorForGroupError, errors.GroupCoordinatorNotAvailableError)


class Coordinator:
    """One group's, through a client of aiokafka."""

    def __init__(self, client: Any, group: str) -> None:
        self._client = client
        self._group = group
        self._node: int | None = None

    async def send(self, request: Any) -> Any:
        """Send a request once and return its answer. Raises KafkaError.

        Who is not answered in time looks for the broker again: one that halted may be replaced.
        """
        if self._node is None:
            self._node = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group)
        try:
            return await self._client.send(self._node, request, group=ConnectionGroup.COORDINATION)
        except (errors.KafkaError, asyncio.CancelledError):
            self.forget()
            raise

    def forget(self) -> None:
        """Look for the broker again: it is another by now."""
        self._node = None

    async def committed(
        self, partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, Checkpoint]:
        """Read what the group has committed; what it has not is left out. Raises KafkaError."""
        topics: dict[str, list[int]] = {}
        for each in partitions:
            topics.setdefault(each.topic, []).append(each.partition)
        answer = await self.send(OffsetFetchRequest(self._group, list(topics.items())))
        found = {}
        codes = {getattr(answer, "error_code", 0)}
        for topic, numbers in answer.topics:
            for number, offset, metadata, code in numbers:
                codes.add(code)
                if offset >= 0:
                    found[TopicPartition(topic, number)] = Checkpoint(offset, metadata or "")
        for code in codes - {0}:
            error = errors.for_code(code)
            if issubclass(error, _MOVED):
                self.forget()
            raise error
        return found

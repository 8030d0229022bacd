"""Who leads the partitions of the topics in use, asked topic by topic, many in one request.

aiokafka keeps one list of topics, and asks for all of them whenever one is added or a leader has
moved: with thousands of them a second of the event loop each time. Here a topic is asked for when
it is needed and when something was wrong with it, and none is created by being asked for.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from aiokafka import errors
from aiokafka.protocol.metadata import MetadataRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka.client import AIOKafkaClient

    from aril.fetching.place import Place

_AT_ONCE: Final = 200  # topics of one request


class Leaders:
    """Leaders of partitions, as far as they were asked for."""

    def __init__(self, client: AIOKafkaClient) -> None:
        """Prepare to ask brokers through `client`, which somebody else starts and closes."""
        self._client = client
        self._known: dict[str, dict[int, int]] = {}  # all partitions; below 0: nobody leads it
        self._asked: dict[str, asyncio.Future[None]] = {}
        self._asking: asyncio.Task[None] | None = None

    def of(self, place: Place) -> int | None:
        """Return the node that led a partition when it was last asked for, if any did."""
        node = self._known.get(place.topic, {}).get(place.partition, -1)
        return node if node >= 0 else None

    def forget(self, topic: str) -> None:
        """Ask again when next needed."""
        self._known.pop(topic, None)

    def forget_all(self) -> None:
        """Ask for every topic again when next needed."""
        self._known.clear()

    def partitions(self, topic: str) -> Mapping[int, int] | None:
        """Return the leaders of a topic's partitions, -1 for none; None if it was not asked for."""
        return self._known.get(topic)

    async def count(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises as `learn`."""
        if topic not in self._known:
            await self.learn(topic)
        return len(self._known[topic])

    async def learn(self, topic: str) -> None:
        """Ask for a topic now; those that are asked for meanwhile share a request.

        Raises UnknownTopicOrPartitionError if there is none, and other errors of Kafka's.
        """
        waiting = self._asked.get(topic)
        if waiting is None:
            waiting = self._asked[topic] = asyncio.get_running_loop().create_future()
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask_all(), name="aril-leaders")
        await asyncio.shield(waiting)

    async def close(self) -> None:
        """Ask nothing more; whoever waits is told that the client is closed."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
        for waiting in self._asked.values():
            fail(waiting, errors.KafkaConnectionError("the client is closed"))
        self._asked.clear()

    async def _ask_all(self) -> None:
        try:
            while self._asked:
                await asyncio.sleep(0)  # so that all who begin in the same moment share it
                topics = [*self._asked][:_AT_ONCE]
                waiting = [self._asked.pop(topic) for topic in topics]
                try:
                    told = await self._ask(topics)
                except errors.KafkaError as error:
                    for each in waiting:
                        fail(each, error)
                    continue
                except asyncio.CancelledError:
                    for each in waiting:
                        fail(each, errors.KafkaConnectionError("the client is closed"))
                    raise
                for topic, each in zip(topics, waiting, strict=True):
                    self._note(topic, told.get(topic), each)
        finally:
            self._asking = None

    async def _ask(self, topics: list[str]) -> dict[str, tuple[int, Any]]:
        """Ask any broker that answers."""
        nodes = [broker.nodeId for broker in self._client.cluster.brokers()]
        random.shuffle(nodes)
        failure: errors.KafkaError = errors.NodeNotReadyError("no broker is known")
        for node in nodes:
            try:
                answer = await self._client.send(node, MetadataRequest(topics, False))  # noqa: FBT003
            except errors.KafkaError as error:
                failure = error
                continue
            return {told[1]: (told[0], told[-1]) for told in answer.topics}
        raise failure

    def _note(
        self, topic: str, told: tuple[int, Iterable[Any]] | None, waiting: asyncio.Future[None]
    ) -> None:
        code, partitions = told or (errors.UnknownTopicOrPartitionError.errno, ())
        found = {each[1]: each[2] for each in partitions}
        # A partition without a leader is told as an error of the topic by old brokers only.
        if found:
            self._known[topic] = found
            if not waiting.done():
                waiting.set_result(None)
            return
        self._known.pop(topic, None)
        kind = errors.for_code(code)
        if kind is errors.NoError:  # old brokers: nothing is told of a topic that is not there
            kind = errors.UnknownTopicOrPartitionError
        fail(waiting, kind(topic))


def fail(waiting: asyncio.Future[Any], error: Exception) -> None:
    """Tell who waits, unless he was told or has gone."""
    if not waiting.done():
        waiting.set_exception(error)
        waiting.exception()  # that of a caller who has gone is nobody's

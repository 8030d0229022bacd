"""Offsets of partitions by time, asked of the partitions' leaders, many in one request.

A broker that answers for the end of a log with a record's time has told of its last batch, not of
its end: the embedded one gives that batch's first offset plus one. There a fetch tells the end.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from aiokafka import errors
from aiokafka.protocol.offset import OffsetRequest

from aril.fetching.leaders import fail
from aril.fetching.place import Place
from aril.fetching.watermark import high_watermark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aiokafka.client import AIOKafkaClient

    from aril.fetching.leaders import Leaders

LATEST: Final = -1
EARLIEST: Final = -2

PATIENCE_SECONDS: Final = 10.0  # for a leader: topics that are new have none for a moment

_AT_ONCE: Final = 500  # partitions of one request
_RETRY_SECONDS: Final = 0.1
_CONSUMER: Final = -1  # in place of a replica's number
_NOTHING: Final = -1
_NO_TIME: Final = -1  # of the end, or where no record is as young
_ASK_AGAIN: Final = (
    errors.NotLeaderForPartitionError,
    errors.LeaderNotAvailableError,
    errors.UnknownTopicOrPartitionError,
    errors.NodeNotReadyError,
    errors.KafkaConnectionError,
)


class _Told(NamedTuple):
    """What a broker said of a partition."""

    offset: int
    timestamp_ms: int


class Offsets:
    """Questions for offsets; those that are put while a broker answers share the next request."""

    def __init__(self, client: AIOKafkaClient, leaders: Leaders) -> None:
        """Prepare to ask brokers through `client`, which somebody else starts and closes."""
        self._client = client
        self._leaders = leaders
        self._asked: dict[int, dict[tuple[Place, int], asyncio.Future[_Told]]] = defaultdict(dict)
        self._asking: dict[int, asyncio.Task[None]] = {}

    async def find(self, place: Place, timestamp: int) -> int:
        """Return an offset of a partition by time in ms, or of its LATEST or EARLIEST record.

        The end's, of LATEST; -1 where nothing is as young as that time. Raises Kafka's errors.
        """
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + PATIENCE_SECONDS, _RETRY_SECONDS
        while True:
            try:
                return await self._find(place, timestamp)
            except _ASK_AGAIN:
                if loop.time() + pause > until:
                    raise
            self._leaders.forget(place.topic)
            await asyncio.sleep(pause)
            pause *= 2

    async def find_all(self, places: Iterable[Place], timestamp: int) -> dict[Place, int]:
        """Return `find` of each partition. Raises as that does."""
        asked = [*places]
        asking = [asyncio.create_task(self.find(each, timestamp)) for each in asked]
        try:
            found = await asyncio.gather(*asking)
        finally:
            for task in asking:  # or they would ask on when one of them has failed
                task.cancel()
        return dict(zip(asked, found, strict=True))

    async def close(self) -> None:
        """Ask nothing more; whoever waits is told that the client is closed."""
        asking = [*self._asking.values()]
        for task in asking:
            task.cancel()
        if asking:
            await asyncio.wait(asking)
        for waiting in self._asked.values():
            for future in waiting.values():
                fail(future, errors.KafkaConnectionError("the client is closed"))
            waiting.clear()

    async def _find(self, place: Place, timestamp: int) -> int:
        node = self._leaders.of(place)
        if node is None:
            await self._leaders.learn(place.topic)
            node = self._leaders.of(place)
        if node is None:
            raise errors.LeaderNotAvailableError(f"{place.topic}/{place.partition} has no leader")
        asked = self._asked[node]
        future = asked.get((place, timestamp))
        if future is None:
            future = asked[place, timestamp] = asyncio.get_running_loop().create_future()
            if node not in self._asking:
                task = asyncio.create_task(self._ask_all(node), name=f"aril-offsets-{node}")
                self._asking[node] = task
        told = await asyncio.shield(future)
        if timestamp == LATEST and told.timestamp_ms != _NO_TIME:
            return await high_watermark(self._client, node, place, told.offset)
        if timestamp >= 0 and told.timestamp_ms == _NO_TIME:
            return _NOTHING  # whatever offset was told with it
        return told.offset

    async def _ask_all(self, node: int) -> None:
        """Ask a broker as long as there are questions for it."""
        asked = self._asked[node]
        try:
            while asked:
                await asyncio.sleep(0)  # so that all who begin in the same moment share it
                times: dict[Place, int] = {}  # a request may name a partition once
                for place, timestamp in asked:
                    if len(times) < _AT_ONCE:
                        times.setdefault(place, timestamp)
                waiting = {each: asked.pop((each, time)) for each, time in times.items()}
                try:
                    await self._ask(node, times, waiting)
                except errors.KafkaError as error:
                    for future in waiting.values():
                        fail(future, error)
                finally:
                    for future in waiting.values():
                        fail(future, errors.KafkaConnectionError("not answered"))
        finally:
            del self._asking[node]

    async def _ask(
        self, node: int, times: Mapping[Place, int], waiting: Mapping[Place, asyncio.Future[_Told]]
    ) -> None:
        """Put one request, and tell those who wait."""
        topics: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for place, timestamp in times.items():
            topics[place.topic].append((place.partition, timestamp))
        request = OffsetRequest(_CONSUMER, 0, [*topics.items()])
        response = await self._client.send(node, request)
        told = {
            Place(topic, number): (code, _Told(offset, timestamp))
            for topic, found in response.topics
            for number, code, timestamp, offset in found
        }
        for place, future in waiting.items():
            if place not in told:
                continue
            code, answer = told[place]
            if (kind := errors.for_code(code)) is not errors.NoError:
                fail(future, kind(f"{place.topic}/{place.partition}"))
            elif not future.done():
                future.set_result(answer)

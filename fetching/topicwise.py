"""A client's metadata, topic by topic. Leans on private parts of aiokafka.

aiokafka keeps one list of topics, and asks for all of them whenever one is added, whenever a leader
has moved, and every few minutes; with no topic in the list it asks for all that the cluster has.
Ten thousand reply topics are megabytes then, decoded on the event loop. Here a topic is asked for
when it is first used, together with those that are needed in the same moment; again when what is in
flight for it finds its leader gone; and after a while it is forgotten, so that one in use is asked
for anew, and one that is not costs nothing. No topic is created by being asked for.
What is private is pinned by tests/fetching/test_topicwise.py.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Final

from aiokafka import errors
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import PartitionMetadata

from aril.fetching.leaders import Leaders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aiokafka import AIOKafkaProducer
    from aiokafka.client import AIOKafkaClient
    from aiokafka.cluster import ClusterMetadata

    from aril.fetching.place import Place

RETRY_SECONDS: Final = 0.1
FORGOTTEN_SECONDS: Final = 300.0  # the age at which aiokafka refreshes metadata


class TopicMetadata:
    """What a client knows of topics; in place of the client's own way to learn it."""

    def __init__(
        self, client: AIOKafkaClient, in_flight: Callable[[], Iterable[str]] = tuple
    ) -> None:
        """Take a client over that was not started yet.

        `in_flight` names the topics whose leaders are to be looked up when one was found gone.
        """
        self.leaders = Leaders(client)
        self._client = client
        self._in_flight = in_flight
        self._since = asyncio.get_running_loop().time()
        self._close_client = client.close
        client.close = self._close
        client._wait_on_metadata = self._wait  # noqa: SLF001 - see above
        client._metadata_update = self._update  # noqa: SLF001

    @classmethod
    def of_producer(cls, producer: AIOKafkaProducer) -> TopicMetadata:
        """Take a producer's client over."""
        accumulator: Any = producer._message_accumulator  # noqa: SLF001

        def in_flight() -> set[str]:
            waiting = {where.topic for where in accumulator._batches}  # noqa: SLF001
            sent = {batch.tp.topic for batch in accumulator._pending_batches}  # noqa: SLF001
            return waiting | sent

        return cls(producer.client, in_flight)

    async def expect(self, place: Place) -> None:
        """Have the client know a partition that was heard of elsewhere: a topic may get more.

        aiokafka fails an assertion where it does not. Raises UnknownTopicOrPartitionError if there
        is none, and other errors of Kafka's.
        """
        if place.partition not in await self._wait(place.topic):
            await self.leaders.learn(place.topic)
            self._tell(place.topic)
            if place.partition not in self._client.cluster.partitions_for_topic(place.topic):
                raise errors.UnknownTopicOrPartitionError(f"{place.topic}/{place.partition}")

    async def _close(self) -> None:
        await self.leaders.close()
        await self._close_client()

    async def _wait(self, topic: str) -> set[int]:
        """Return a topic's partitions; learn them first if it was not used lately.

        Raises as aiokafka's: UnknownTopicOrPartitionError after a request's time.
        """
        cluster = self._client.cluster
        loop = asyncio.get_running_loop()
        until = loop.time() + self._client._request_timeout_ms / 1_000  # noqa: SLF001
        while (found := cluster.partitions_for_topic(topic)) is None:
            try:
                if self.leaders.partitions(topic) is None:
                    await self.leaders.learn(topic)
            except (errors.TopicAuthorizationFailedError, errors.InvalidTopicError):
                raise
            except errors.KafkaError as error:
                if loop.time() > until:
                    raise errors.UnknownTopicOrPartitionError(topic) from error
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._tell(topic)
        told: set[int] = found
        return told

    async def _update(self, cluster: ClusterMetadata, _topics: object) -> bool:
        """Learn the brokers anew, and where that is led which is in flight."""
        now = asyncio.get_running_loop().time()
        if now - self._since > FORGOTTEN_SECONDS:
            self._since = now
            self.leaders.forget_all()
            cluster._partitions.clear()  # noqa: SLF001
        asked = [*self._in_flight()]
        if not await self._learn_brokers(cluster):
            return False
        await asyncio.gather(*map(self._learn_anew, asked))
        return True

    async def _learn_anew(self, topic: str) -> None:
        try:
            await self.leaders.learn(topic)
        except errors.KafkaError:  # what is in flight waits for it, as long as it may
            self._client.cluster._partitions.pop(topic, None)  # noqa: SLF001
        else:
            self._tell(topic)

    async def _learn_brokers(self, cluster: ClusterMetadata) -> bool:
        nodes = [broker.nodeId for broker in cluster.brokers()]
        random.shuffle(nodes)
        for node in nodes:
            conn = await self._client._get_conn(node)  # noqa: SLF001 - `send` asks for an update
            if conn is None:
                continue
            try:
                answer = await conn.send(MetadataRequest([], False))  # noqa: FBT003 - theirs
            except (errors.KafkaError, TimeoutError):
                continue
            if answer.brokers:
                kept = cluster._partitions  # noqa: SLF001
                cluster.update_metadata(answer)
                cluster._partitions = kept  # noqa: SLF001
                return True
        cluster.failed_update(None)
        return False

    def _tell(self, topic: str) -> None:
        """Have the client know what was learned."""
        partitions = self.leaders.partitions(topic) or {}
        self._client.cluster._partitions[topic] = {  # noqa: SLF001
            number: PartitionMetadata(topic, number, node, [], [], 0)
            for number, node in partitions.items()
        }

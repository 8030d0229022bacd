"""A connection's transport on a Kafka cluster, by aiokafka: its producer, and our own reader."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from aril.connecting.sessions import renew_sessions
from aril.errors import BrokerUnavailable, TopicMissing
from aril.fetching.follower import Follower, PlaceError
from aril.fetching.offsets import EARLIEST, LATEST, Offsets
from aril.fetching.topicwise import TopicMetadata
from aril.transport import OutOfRange, Unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aril.transport import Fetched, Place

CONTENT_TYPE: Final = ("content-type", b"application/msgpack")
POLL_SECONDS: Final = 0.1
# A partition that is followed anew waits for the fetch in flight to its broker: keep that short.
FETCH_WAIT_MS: Final = 50
REQUEST_TIMEOUT_MS: Final = 15_000


@contextlib.contextmanager
def kafka_errors(*, no_broker: str = "no broker answers") -> Iterator[None]:
    """Raise the library's errors, and those of the network, as `BrokerUnavailable`."""
    try:
        yield
    except KafkaConnectionError as error:
        raise BrokerUnavailable(no_broker) from error
    except (KafkaError, OSError, TimeoutError) as error:
        raise BrokerUnavailable(" ".join(str(error).split()) or "no answer in time") from error


class KafkaTransport:
    """The jobs topics and any number of reply topics on a Kafka cluster."""

    def __init__(self, bootstrap: str, *, security: Mapping[str, Any] | None = None) -> None:
        """Prepare; `security` holds aiokafka's `security_protocol`, `ssl_context`, `sasl_*`."""
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            **(security or {}),
        }
        self._producer: Any = None
        self._topics: Any = None
        self._client: Any = None
        self._leaders: Any = None
        self._offsets: Any = None
        self._follower: Any = None

    async def open(self) -> None:
        """See `Transport`."""
        # A duplicate or a late landing of a job or a cancel is harmless; being stuck is not.
        self._producer = AIOKafkaProducer(**self._options, acks="all", enable_idempotence=False)
        self._client = AIOKafkaClient(**self._options)
        renew_sessions(self._producer.client)
        renew_sessions(self._client)
        self._topics = TopicMetadata.of_producer(self._producer)
        self._leaders = TopicMetadata(self._client).leaders
        self._offsets = Offsets(self._client, self._leaders)
        self._follower = Follower(self._client, self._leaders, wait_ms=FETCH_WAIT_MS)
        try:
            brokers = self._options["bootstrap_servers"]
            with kafka_errors(no_broker=f"no broker answers at {brokers}"):
                await self._producer.start()
                await self._client.bootstrap()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `Transport`."""
        client, self._client = self._client, None
        producer, self._producer = self._producer, None
        try:
            if client is not None:
                await self._follower.close()
                await self._offsets.close()
                await client.close()
        finally:
            if producer is not None:
                await producer.stop()

    async def partitions(self, topic: str) -> int:
        """See `Transport`."""
        with kafka_errors():
            try:
                count: int = await self._leaders.count(topic)
            except TopicAuthorizationFailedError:
                told = f"topic {topic} does not exist, or is nothing for this user"
                raise TopicMissing(told) from None
            except UnknownTopicOrPartitionError:
                told = f"topic {topic} does not exist; `aril topics` creates it"
                raise TopicMissing(told) from None
        return count

    async def send(
        self,
        place: Place,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """See `Transport`."""
        with kafka_errors():
            await self._topics.expect(place)
            await self._producer.send_and_wait(
                place.topic,
                value,
                key=key,
                partition=place.partition,
                headers=[CONTENT_TYPE, *headers],
            )

    async def log_start(self, place: Place) -> int:
        """See `Transport`."""
        return await self._offset(place, EARLIEST)

    async def log_end(self, place: Place) -> int:
        """See `Transport`."""
        return await self._offset(place, LATEST)

    async def offset_at(self, place: Place, time_ms: int) -> int:
        """See `Transport`."""
        found = await self._offset(place, max(0, time_ms))
        return found if found >= 0 else await self.log_end(place)

    def position(self, place: Place) -> int | None:
        """See `Transport`."""
        found: int | None = self._follower.position(place)
        return found

    def follow(self, place: Place, offset: int) -> None:
        """See `Transport`."""
        self._follower.follow(place, offset)

    def unfollow(self, place: Place) -> None:
        """See `Transport`."""
        self._follower.unfollow(place)

    async def poll(self) -> Sequence[Fetched]:
        """See `Transport`."""
        try:
            found: Sequence[Fetched] = await self._follower.poll(POLL_SECONDS)
        except PlaceError as error:
            if isinstance(error.error, OffsetOutOfRangeError):
                raise OutOfRange(error.place) from error
            raise Unreadable(error.place, str(error.error)) from error
        return found

    async def _offset(self, place: Place, timestamp: int) -> int:
        with kafka_errors():
            found: int = await self._offsets.find(place, timestamp)
        return found

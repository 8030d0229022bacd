"""The client's transport on a Kafka cluster, by aiokafka."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError, OffsetOutOfRangeError

from aril.connecting.sessions import renew_sessions
from aril.errors import BrokerUnavailable, TopicMissing
from aril.fetching.tolerant import skip_unreadable
from aril.transport import Fetched, OutOfRange, Partitions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CONTENT_TYPE: Final = ("content-type", b"application/msgpack")
POLL_MS: Final = 100
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
    """The jobs topic and one tenant's reply topic on a Kafka cluster."""

    def __init__(
        self,
        bootstrap: str,
        *,
        jobs_topic: str,
        reply_topic: str,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare; `security` holds aiokafka's `security_protocol`, `ssl_context`, `sasl_*`."""
        self._common: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            **(security or {}),
        }
        self._bootstrap = bootstrap
        self._jobs_topic = jobs_topic
        self._reply_topic = reply_topic
        self._producer: Any = None
        self._consumer: Any = None

    async def open(self) -> Partitions:
        """See `Transport`."""
        # A duplicate or a late landing of a job or a cancel is harmless; being stuck is not.
        self._producer = AIOKafkaProducer(**self._common, acks="all", enable_idempotence=False)
        self._consumer = AIOKafkaConsumer(
            **self._common,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        renew_sessions(self._producer.client)
        renew_sessions(self._consumer._client)  # noqa: SLF001 - aiokafka has no other way to it
        try:
            with kafka_errors(no_broker=f"no broker answers at {self._bootstrap}"):
                return await self._connect()
        except BaseException:
            await self.close()
            raise

    async def _connect(self) -> Partitions:
        await self._producer.start()
        await self._consumer.start()
        skip_unreadable(self._consumer)  # what nobody can read counts for no reader
        # Asking for a topic by name would create it where the cluster does that by itself.
        existing = await self._consumer.topics()
        for topic in (self._jobs_topic, self._reply_topic):
            if topic not in existing:
                raise TopicMissing(f"topic {topic} does not exist; `aril topics` creates it")
        jobs = await self._producer.partitions_for(self._jobs_topic)
        replies = await self._producer.partitions_for(self._reply_topic)
        places = [TopicPartition(self._reply_topic, number) for number in sorted(replies)]
        self._consumer.assign(places)
        for place in places:
            self._consumer.pause(place)
            self._consumer.seek(place, 0)  # an offset, so that none is looked up; not read: paused
        return Partitions(len(jobs), len(replies))

    async def close(self) -> None:
        """See `Transport`."""
        consumer, self._consumer = self._consumer, None
        producer, self._producer = self._producer, None
        try:
            if consumer is not None:
                await consumer.stop()
        finally:
            if producer is not None:
                await producer.stop()

    async def send(
        self,
        partition: int,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """See `Transport`."""
        with kafka_errors():
            await self._producer.send_and_wait(
                self._jobs_topic,
                value,
                key=key,
                partition=partition,
                headers=[CONTENT_TYPE, *headers],
            )

    async def log_start(self, partition: int) -> int:
        """See `Transport`."""
        place = TopicPartition(self._reply_topic, partition)
        with kafka_errors():
            offsets: dict[TopicPartition, int] = await self._consumer.beginning_offsets([place])
        return offsets[place]

    async def log_end(self, partition: int) -> int:
        """See `Transport`."""
        place = TopicPartition(self._reply_topic, partition)
        with kafka_errors():
            offsets: dict[TopicPartition, int] = await self._consumer.end_offsets([place])
        return offsets[place]

    def follow(self, partition: int, offset: int) -> None:
        """See `Transport`."""
        place = TopicPartition(self._reply_topic, partition)
        self._consumer.seek(place, offset)
        self._consumer.resume(place)

    def unfollow(self, partition: int) -> None:
        """See `Transport`."""
        self._consumer.pause(TopicPartition(self._reply_topic, partition))

    async def poll(self) -> Sequence[Fetched]:
        """See `Transport`."""
        with kafka_errors():
            try:
                batches = await self._consumer.getmany(timeout_ms=POLL_MS)
            except OffsetOutOfRangeError as error:
                (place,) = error.args[0]
                raise OutOfRange(place.partition) from error
        return [
            Fetched(record.partition, record.offset, record.key, record.value)
            for records in batches.values()
            for record in records
        ]

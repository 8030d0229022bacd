"""Appends to Kafka: reply records and dead letters, acknowledged by all replicas.

The producer is not idempotent, on purpose: the reader rule already tolerates an append that lands
twice or late, and an idempotent producer can stick at a sequence gap until it is rebuilt. A failed
append says something of its partition first, and nothing of the others: the producer they share is
replaced only when it has ended, or when nothing at all gets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

from aiokafka import AIOKafkaProducer, errors

from aril.connecting.sessions import renew_sessions
from aril.fetching.topicwise import TopicMetadata
from aril.worker.observe.logs import get_logger
from aril.worker.replies.broker_clock import BrokerClock
from aril.worker.replies.dead_letters import DeadLetter
from aril.worker.replies.known_topics import KnownTopics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.fetching.leaders import Leaders
    from aril.worker.job import Record
    from aril.worker.settings import WorkerSettings

log = get_logger(__name__)

REQUEST_TIMEOUT_MS = 15_000
MAX_REQUEST_BYTES = 1_048_576
REBUILD_PAUSE_SECONDS = 1.0
APPEND_SECONDS = 2 * REQUEST_TIMEOUT_MS / 1_000
STUCK_SECONDS = 2 * REQUEST_TIMEOUT_MS / 1_000  # without one append that got through
STOP_SECONDS = 5.0
LOG_APPEND_TIME = 1  # the kind of a timestamp that the broker gave

# The record or the right to write it is at fault: the same append will fail again.
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_HOPELESS = (
    *_TOO_LARGE,
    errors.TopicAuthorizationFailedError,
    errors.InvalidTopicError,
)
_NO_TOPIC = (
    errors.UnknownTopicOrPartitionError,
    errors.TopicAuthorizationFailedError,
    errors.InvalidTopicError,
)


class AppendError(Exception):
    """An append failed, or its fate is unknown; ``hopeless`` if it would fail again."""

    def __init__(self, cause: str, *, hopeless: bool) -> None:
        super().__init__(cause)
        self.hopeless = hopeless


class TooLargeError(AppendError):
    """The topic takes no record of that size, nor does a producer's request."""


class LogWriter:
    """One producer for all replies and dead letters of a worker."""

    def __init__(self, settings: WorkerSettings, client_id: str) -> None:
        self._options: dict[str, Any] = {
            "bootstrap_servers": settings.bootstrap,
            "client_id": client_id,
            "acks": "all",
            "enable_idempotence": False,
            "linger_ms": 0,
            "max_batch_size": 65_536,
            "max_request_size": MAX_REQUEST_BYTES,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            **settings.kafka_security(),
        }
        self.clock = BrokerClock()
        self._producer: AIOKafkaProducer | None = None
        self._leaders: Leaders | None = None  # of the topics that it appends to
        self._rebuilding: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        self._topics = KnownTopics()
        self._worked_at = 0.0  # when an append last got through, or a new producer came

    @property
    def silent_seconds(self) -> float:
        """For how long no append got through; it may be that none was tried."""
        return time.monotonic() - self._worked_at

    async def start(self) -> None:
        """Connect. Raises aiokafka's KafkaError when no broker answers."""
        self._producer = await self._connected()
        self._worked_at = time.monotonic()

    async def stop(self) -> None:
        """Flush what is under way and close."""
        if self._rebuilding is not None:
            self._rebuilding.cancel()
        if self._producer is not None:
            await _stop_quietly(self._producer)
        await asyncio.gather(*self._retired)

    def known_partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has, if it was asked for before. Never changes."""
        return self._topics.partitions(topic)

    async def partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has; None if there is no such topic.

        Asking creates none, whatever the brokers are set to. Raises aiokafka's KafkaError.
        """
        known = self._topics.partitions(topic)
        if known is not None or self._topics.is_missing(topic, time.monotonic()):
            return known
        await self._ready()
        if found := await self._count(topic):
            self._topics.found(topic, found)
            return found
        self._topics.not_found(topic, time.monotonic())
        return None

    def topics_in_use(self) -> list[str]:
        """Return the topics that were asked for and exist, the newest last."""
        return self._topics.in_use()

    def forget_missing(self, topic: str) -> None:
        """Look a topic up again at once: it was just created."""
        self._topics.look_again(topic)

    async def append(
        self,
        topic: str,
        partition: int | None,
        key: bytes,
        values: Sequence[bytes | None],
        headers: Sequence[tuple[str, bytes | None]] = (),
    ) -> None:
        """Append records of one key, in order, and wait until all are acknowledged.

        Raises AppendError.
        """
        await self.append_all(topic, partition, [(key, value) for value in values], headers)

    async def append_all(
        self,
        topic: str,
        partition: int | None,
        records: Sequence[tuple[bytes, bytes | None]],
        headers: Sequence[tuple[str, bytes | None]] = (),
        *,
        seconds: float = APPEND_SECONDS,
    ) -> list[int]:
        """Append records (key, value) in order; return their offsets once all are acknowledged.

        Raises AppendError, after so many seconds at the latest; after that each of them may stand
        in the log or not.
        """
        producer = await self._ready()
        pending: list[asyncio.Future[Any]] = []
        sent_ms = time.time() * 1_000
        try:
            # The client waits without end for what it lost with a connection of its own.
            async with asyncio.timeout(seconds):
                for key, value in records:
                    pending.append(
                        await producer.send(topic, value, key, partition, headers=list(headers))
                    )
                results = await asyncio.gather(*pending, return_exceptions=True)
        except Exception as error:  # noqa: BLE001 - whatever the client trips over: it is this append's
            for each in pending:
                each.add_done_callback(_look_at)
            raise await self._failed(topic, error) from None
        offsets: list[int] = []
        for result in results:
            if isinstance(result, BaseException):
                raise await self._failed(topic, result)
            offsets.append(result.offset)
            if result.timestamp_type == LOG_APPEND_TIME:
                heard_ms = time.time() * 1_000
                self.clock.appended(result.timestamp, sent_ms=sent_ms, heard_ms=heard_ms)
        self._worked_at = time.monotonic()
        return offsets

    async def put_aside(
        self, dlq_topic: str, record: Record, reason: str, code: str, message: str
    ) -> None:
        """Append a record to the dead letters, cut where it is too large for them.

        Raises AppendError.
        """
        letter = DeadLetter.of(record, reason, code, message)
        try:
            await self.append(dlq_topic, None, letter.key, [letter.value], letter.headers)
        except TooLargeError:
            letter = DeadLetter.cut(record, reason, code, message)
            await self.append(dlq_topic, None, letter.key, [letter.value], letter.headers)

    async def _failed(self, topic: str, failure: BaseException) -> AppendError:
        hopeless = isinstance(failure, _HOPELESS)
        if isinstance(failure, errors.UnknownTopicOrPartitionError):
            hopeless = await self._is_gone(topic)
        log.warning("append_failed", topic=topic, error=type(failure).__name__, hopeless=hopeless)
        if not hopeless and self._rebuilding is None and self._is_stuck(failure):
            self._rebuilding = asyncio.create_task(self._rebuild())
        kind = TooLargeError if isinstance(failure, _TOO_LARGE) else AppendError
        return kind(type(failure).__name__, hopeless=hopeless)

    async def _is_gone(self, topic: str) -> bool:
        """Whether the brokers say that there is no such topic.

        The client says it as well of one that it has not used yet, where no broker tells it of its
        topics in time: that is a silent network.
        """
        if self._producer is None:
            return False
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_MS / 1_000):
                return not await self._count(topic)
        except (errors.KafkaError, TimeoutError):
            return False

    def _is_stuck(self, failure: BaseException) -> bool:
        """Whether the producer is to blame: it has ended, or nothing gets through."""
        # A sender that broke fails all its batches with the plain class.
        ended = isinstance(failure, errors.ProducerClosed) or type(failure) is errors.KafkaError
        return ended or self.silent_seconds > STUCK_SECONDS

    async def _ready(self) -> AIOKafkaProducer:
        if self._rebuilding is not None:
            await asyncio.shield(self._rebuilding)
        if self._producer is None:
            raise RuntimeError("the writer was not started")
        return self._producer

    async def _count(self, topic: str) -> int:
        """Ask how many partitions a topic has; 0 if there is none, or none for us."""
        if self._leaders is None:
            raise RuntimeError("the writer was not started")
        try:
            await self._leaders.learn(topic)
        except _NO_TOPIC:
            return 0
        return await self._leaders.count(topic)

    async def _rebuild(self) -> None:
        old = self._producer
        if old is not None:
            retired = asyncio.create_task(_stop_quietly(old))
            self._retired.add(retired)
            retired.add_done_callback(self._retired.discard)
        while True:
            try:
                self._producer = await self._connected()
            except errors.KafkaError as error:
                log.warning("brokers_unreachable", error=type(error).__name__)
                await asyncio.sleep(REBUILD_PAUSE_SECONDS)
            else:
                self._rebuilding = None
                self._worked_at = time.monotonic()
                log.info("producer_rebuilt")
                return

    async def _connected(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(**self._options)
        renew_sessions(producer.client)
        leaders = TopicMetadata.of_producer(producer).leaders
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._leaders = leaders
        return producer


def _look_at(future: asyncio.Future[Any]) -> None:
    """Retrieve what became of an append that nobody waits for, so that asyncio keeps silent."""
    if not future.cancelled():
        future.exception()


async def _stop_quietly(producer: AIOKafkaProducer) -> None:
    """Close a producer whose last appends may hang; nobody waits for them any more."""
    with contextlib.suppress(errors.KafkaError, TimeoutError):
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()

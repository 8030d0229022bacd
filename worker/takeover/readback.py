"""Reading reply logs back, from jobs' starts up to claims. Belongs to no consumer group.

All logs through one connection a broker: a worker that inherits jobs of hundreds of tenants asks
for the starts of their logs in a few requests, and each fetch brings what there is of many.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from aiokafka import errors
from aiokafka.client import AIOKafkaClient

from aril.connecting.sessions import renew_sessions
from aril.fetching.follower import Follower, PlaceError
from aril.fetching.offsets import EARLIEST, LATEST, Offsets
from aril.fetching.place import Place
from aril.fetching.topicwise import TopicMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aril.fetching.place import Fetched
    from aril.worker.job import Partition
    from aril.worker.settings import WorkerSettings

FETCH_WAIT_MS: Final = 20  # the claim that is waited for is in the log already
POLL_SECONDS: Final = 0.5
REQUEST_TIMEOUT_MS: Final = 15_000
SILENT_SECONDS: Final = 15.0
TURN_RECORDS: Final = 200  # that are handed out before others have the event loop


class ReadError(Exception):
    """A log could not be read; nothing is known of it."""


class OutOfRangeError(ReadError):
    """The log has no such offset: it begins later, or ends before."""


class LogRecord(NamedTuple):
    """One record as it was read back."""

    offset: int
    key: bytes | None
    value: bytes | None


class LogReader(Protocol):
    """What taking over needs of the reply logs. Every method raises ReadError."""

    async def start_of(self, source: Partition) -> int:
        """Return the first offset that the log still holds."""

    async def end_of(self, source: Partition) -> int:
        """Return the offset that the log's next record gets."""

    async def offset_at(self, source: Partition, timestamp_ms: int) -> int:
        """Return the first offset whose record is not older than that moment."""

    async def read(
        self, source: Partition, start: int, last: int, take: Callable[[LogRecord], None]
    ) -> None:
        """Hand out every record of the log from `start` up to and including `last`."""


class _Span:
    """A part of a log that is being read."""

    def __init__(self, start: int, last: int, take: Callable[[LogRecord], None]) -> None:
        loop = asyncio.get_running_loop()
        self.last = last
        self.take = take
        self.position = start
        self.heard = loop.time()
        self.ended: asyncio.Future[None] = loop.create_future()

    def end(self) -> None:
        """Tell who reads it that all has come."""
        if not self.ended.done():
            self.ended.set_result(None)

    def fail(self, error: BaseException) -> None:
        """Tell who reads it that nothing more comes."""
        if not self.ended.done():
            self.ended.set_exception(error)


class KafkaLogReader:
    """One reader of any number of logs. It connects when it is first asked something."""

    def __init__(self, settings: WorkerSettings, client_id: str) -> None:
        self._options = {
            "bootstrap_servers": settings.bootstrap,
            "client_id": f"{client_id}-readback",
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            **settings.kafka_security(),
        }
        self._connecting: asyncio.Task[_Connection] | None = None  # or done: connected
        self._spans: dict[Place, _Span] = {}  # one of a log at a time
        self._pumping: asyncio.Task[None] | None = None
        self._listen_at = 0.0

    async def start_of(self, source: Partition) -> int:
        """See LogReader."""
        with _read_errors():
            return await (await self._connected()).offsets.find(Place(*source), EARLIEST)

    async def end_of(self, source: Partition) -> int:
        """See LogReader."""
        with _read_errors():
            return await (await self._connected()).offsets.find(Place(*source), LATEST)

    async def offset_at(self, source: Partition, timestamp_ms: int) -> int:
        """See LogReader."""
        place = Place(*source)
        with _read_errors():
            offsets = (await self._connected()).offsets
            found = await offsets.find(place, max(0, timestamp_ms))
            # Nothing so young: clocks differ by more than the slack.
            return found if found >= 0 else await offsets.find(place, EARLIEST)

    async def read(
        self, source: Partition, start: int, last: int, take: Callable[[LogRecord], None]
    ) -> None:
        """See LogReader."""
        if start > last:
            return
        place = Place(*source)
        with _read_errors():
            follower = (await self._connected()).follower
            while (other := self._spans.get(place)) is not None:
                await asyncio.wait([other.ended])
            span = self._spans[place] = _Span(start, last, take)
            try:
                follower.follow(place, start, last)
                if self._pumping is None:
                    self._pumping = asyncio.create_task(self._pump(follower), name="aril-readback")
                await span.ended
            finally:
                if self._spans.get(place) is span:
                    del self._spans[place]
                    follower.unfollow(place)
                span.ended.cancel()  # if it is not over: whoever waits for it has his turn
                del span  # it holds the error, that this frame, and that what is read for

    async def stop(self) -> None:
        """Close the connections; what is being read ends in ReadError."""
        if (pumping := self._pumping) is not None:
            pumping.cancel()
            await asyncio.wait([pumping])
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
            if not connecting.cancelled() and connecting.exception() is None:
                await connecting.result().close()

    async def _connected(self) -> _Connection:
        """Connect if that has not been done; all who wait for it share what comes of it."""
        if self._connecting is None:
            self._connecting = asyncio.create_task(_Connection.make(self._options))
        connecting = self._connecting
        try:
            return await asyncio.shield(connecting)
        except (errors.KafkaError, OSError):
            if self._connecting is connecting:
                self._connecting = None  # whoever asks next tries again
            raise
        finally:
            del connecting  # as above

    async def _pump(self, follower: Follower) -> None:
        """Hand out what comes as long as anything is read."""
        try:
            while self._spans:
                try:
                    records = await follower.poll(POLL_SECONDS)
                except PlaceError as error:
                    if (span := self._spans.get(error.place)) is not None:
                        span.fail(error.error)
                        del self._spans[error.place]  # it is not followed any more
                    continue
                passed = [(self._spans.get(place), place) for place in follower.passed()]
                await self._hand_out(records)
                for span, place in passed:
                    if span is not None and self._spans.get(place) is span:
                        del self._spans[place]
                        follower.unfollow(place)
                        span.end()
                self._end_silent(follower)
        finally:
            self._pumping = None
            for span in self._spans.values():
                span.fail(ReadError("the reader was stopped"))

    async def _hand_out(self, records: Iterable[Fetched]) -> None:
        """Give each record to whoever read that log when it came."""
        spans = dict(self._spans)
        for number, record in enumerate(records, start=1):
            span = spans.get(record.place)
            if span is None or span.ended.done() or record.offset > span.last:
                continue
            try:
                span.take(LogRecord(record.offset, record.key, record.value))
            except Exception as error:  # noqa: BLE001 - theirs, and of this log alone
                span.fail(error)
            if number % TURN_RECORDS == 0:
                await asyncio.sleep(0)

    def _end_silent(self, follower: Follower) -> None:
        """Wait no longer for logs of which nothing comes."""
        now = asyncio.get_running_loop().time()
        if now < self._listen_at:
            return
        self._listen_at = now + POLL_SECONDS
        for place, span in self._spans.items():
            position = follower.position(place)
            if position is not None and position != span.position:
                span.position, span.heard = position, now
            elif now - span.heard > SILENT_SECONDS:
                told = f"{place.topic}/{place.partition} is silent at {span.position}"
                span.fail(ReadError(told))


class _Connection:
    """A client of the brokers, and what asks through it."""

    def __init__(self, client: AIOKafkaClient) -> None:
        leaders = TopicMetadata(client).leaders
        self._client = client
        self.offsets = Offsets(client, leaders)
        self.follower = Follower(client, leaders, wait_ms=FETCH_WAIT_MS)

    @classmethod
    async def make(cls, options: dict[str, object]) -> _Connection:
        """Connect. Raises aiokafka's KafkaError where no broker answers."""
        client = AIOKafkaClient(**options)
        renew_sessions(client)
        made = cls(client)
        try:
            await client.bootstrap()
        except BaseException:
            await client.close()
            raise
        return made

    async def close(self) -> None:
        """Disconnect."""
        await self.follower.close()
        await self.offsets.close()
        await self._client.close()


@contextlib.contextmanager
def _read_errors() -> Iterator[None]:
    """Raise the library's errors, and those of the network, as ReadError."""
    try:
        yield
    except errors.OffsetOutOfRangeError as error:
        raise OutOfRangeError(type(error).__name__) from error
    except (errors.KafkaError, OSError) as error:
        raise ReadError(type(error).__name__) from error

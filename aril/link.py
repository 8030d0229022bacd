"""The link to the brokers under one client or many: one producer, one reader, one router.

The reader has no consumer group: each reply partition is read from where its jobs need it, and not
at all while none does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self

from aril.errors import BrokerUnavailable, ClientClosed, TopicMissing
from aril.router import INBOX_BYTES, Router
from aril.transport import OutOfRange, Place, Unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from aril.transport import Transport

# Events that one job may be ahead of its caller: a few screens of text, some hundred kilobytes.
INBOX_EVENTS: Final = 512


class Link:
    """What clients share. An async context manager."""

    def __init__(
        self,
        bootstrap: str,
        *,
        jobs_topic: str = "jobs",
        replies_prefix: str = "replies.",
        security: Mapping[str, Any] | None = None,
        inbox_events: int = INBOX_EVENTS,
        inbox_bytes: int = INBOX_BYTES,
        transport: Transport | None = None,
    ) -> None:
        """Prepare to connect to `bootstrap` (host:port[,host:port]).

        `jobs_topic` may end in `*`, in place of which the tenant's name stands. `security` is
        passed to aiokafka: `security_protocol`, `ssl_context`, `sasl_mechanism`,
        `sasl_plain_username`, `sasl_plain_password`; connections that authenticate by SASL are
        renewed before the brokers end them. `inbox_events` bounds what is read ahead of each
        job's caller, and so does `inbox_bytes`, of the records that they came in. `transport`
        replaces Kafka, as in tests.
        """
        if transport is None:
            from aril.kafka import KafkaTransport  # noqa: PLC0415 - 0.1 s, and not for twins

            transport = KafkaTransport(bootstrap, security=security)
        self.jobs_topic = jobs_topic
        self.replies_prefix = replies_prefix
        self.inbox_events = inbox_events
        self.inbox_bytes = inbox_bytes
        self.transport = transport
        self.router: Router = Router(follow=self._follow, unfollow=transport.unfollow)
        self._partitions: dict[str, int] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect. Raises `BrokerUnavailable`."""
        await self.transport.open()
        self._partitions = {}
        self._reader = asyncio.create_task(self._read(), name="aril-replies")

    async def close(self) -> None:
        """Disconnect; streams that are unfinished end in `ClientClosed`, their jobs go on."""
        reader, self._reader = self._reader, None
        self._closing = True
        self._work.set()
        self.router.fail_all(lambda: ClientClosed("the connection was closed"))
        if reader is not None:
            await asyncio.wait([reader])  # unlike awaiting it, this never cancels a poll
        self._partitions = None
        await self.transport.close()
        if reader is not None:
            reader.result()

    async def broken(self) -> None:
        """Wait until nothing is read any more: raises why, or returns once it was closed."""
        if self._reader is not None:
            await asyncio.shield(self._reader)

    @property
    def closing(self) -> bool:
        """Whether `close` was called: nothing new is begun."""
        return self._closing

    async def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has. Raises `TopicMissing`, `ClientClosed`.

        As the transport has it, which asks again from time to time: a jobs topic may get more.
        While no broker answers it is what it was; `BrokerUnavailable` if that is not known.
        """
        if self._partitions is None:
            raise ClientClosed("not open: use `async with Client(...)`, or `async with Connection`")
        known = self._partitions
        try:
            known[topic] = await self.transport.partitions(topic)
        except TopicMissing:
            known.pop(topic, None)
            raise
        except BrokerUnavailable:
            if topic not in known:
                raise
        return known[topic]

    async def end_of(self, place: Place) -> int:
        """Return an offset that what is not yet written of a partition does not lie below."""
        # What the reader will read next is as good as the end, and costs nothing.
        position = self.router.position(place)
        return await self.transport.log_end(place) if position is None else position

    def _follow(self, place: Place, offset: int) -> None:
        self.transport.follow(place, offset)
        self._work.set()

    async def _read(self) -> None:
        try:
            while not self._closing:
                if self.router.following:
                    await self._read_once()
                else:
                    self._work.clear()
                    await self._work.wait()
        except BaseException:
            self.router.fail_all(lambda: ClientClosed("reading replies has failed"))
            raise

    async def _read_once(self) -> None:
        try:
            # Nothing may be awaited between these three: a seek would make the records stale.
            records = await self.transport.poll()
            self.router.deliver(records)
            self.router.arrived(self.transport.position)
        except OutOfRange as error:
            await self._trim(error.place)
        except Unreadable as error:
            self._fail(error.place, str(error))
        except BrokerUnavailable as error:
            text = str(error)
            self.router.fail_all(lambda: BrokerUnavailable(text))

    async def _trim(self, place: Place) -> None:
        try:
            start = await self.transport.log_start(place)
            end = await self.transport.log_end(place)
        except BrokerUnavailable as error:
            self._fail(place, str(error))
        else:
            self.router.trim(place, start, end)

    def _fail(self, place: Place, text: str) -> None:
        if self._partitions is not None:
            self._partitions.pop(place.topic, None)  # it may have been created anew
        self.router.fail(place, lambda: BrokerUnavailable(text))

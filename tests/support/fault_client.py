"""The real client over a transport that sends twice at times; a reader that survives faults."""

from __future__ import annotations

import asyncio
import contextlib
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from aril import Client
from aril.errors import ArilError, BrokerUnavailable, ClientClosed, JobFailed, StreamLost
from aril.kafka import KafkaTransport
from aril.schemas import ErrorEvent, ResetEvent, TokensEvent
from tests.support.fault_jobs import break_job

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from aril import Stream
    from aril.schemas import Event
    from aril.transport import Place
    from tests.faults.history import Outcome
    from tests.support.fault_fleet import FaultSite
    from tests.support.fault_packers import Packers

TWICE_SHARE = 0.1
RETRY_SECONDS = 0.5


class FaultTransport(KafkaTransport):
    """Sends some records twice, as a producer does that got no acknowledgement; breaks others.

    Some it has packed.
    """

    def __init__(self, *args: Any, packers: Packers | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._packers = packers
        self.codecs: dict[bytes, str] = {}  # by keys of jobs whose records are packed
        self.to_break: set[bytes] = set()  # keys of jobs that must not arrive as jobs

    async def send(
        self,
        place: Place,
        key: bytes,
        value: bytes,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        """Send once, and perhaps once more."""
        if key in self.to_break:
            value = break_job(value)
        await self._send(place, key, value, headers)
        if random.random() < TWICE_SHARE:
            await self._send(place, key, value, headers)

    async def _send(
        self, place: Place, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        codec = self.codecs.get(key)
        if codec is None or self._packers is None:
            await super().send(place, key, value, headers)
        else:
            await self._packers.send(codec, place.partition, key, value, headers)


class FaultClient(Client):
    """A tenant's client; its transport spoils the jobs that `breaking` names, packs others."""

    def __init__(self, site: FaultSite, tenant: str, packers: Packers | None = None) -> None:
        contract = site.contract
        transport = FaultTransport(site.bootstrap, packers=packers)
        self.breaking = transport.to_break
        self.packing = transport.codecs
        super().__init__(
            site.bootstrap,
            tenant,
            jobs_topic=contract.jobs_topic,
            replies_prefix=contract.replies_prefix,
            transport=transport,
        )


class Reader:
    """Reads one answer: in one go, by a new client half-way, or its beginning only."""

    def __init__(
        self, site: FaultSite, client: FaultClient, stream: Stream, patience: float
    ) -> None:
        self._site = site
        self._client = client
        self._stream = stream
        self._patience = patience  # seconds that an answer is waited for
        self.events: list[Event] = []
        self.restarts = 0  # how often a new client went on

    async def read(
        self,
        *,
        cancel_after: float | None = None,
        pause_after: int | None = None,
        leave: bool = False,
    ) -> Outcome:
        """Read to the end, the job's failure included; with `leave` up to the pause only.

        Seconds until it is cancelled, events until the reader is replaced. Raises TimeoutError.
        """
        try:
            await self._stream.start()
            async with _cancelling(self._stream, cancel_after):
                return await self._follow(pause_after, leave=leave)
        except BrokerUnavailable:
            return await self._insist()
        except JobFailed as error:
            self._failed(error)
        except StreamLost:
            return "lost"
        return "ok"

    async def _follow(self, pause_after: int | None, *, leave: bool) -> Outcome:
        if pause_after is None:
            async for event in self._stream:
                self.events.append(event)
            return "ok"
        token = await self._begin(pause_after)
        if token is not None and leave:
            return "info"
        if token is not None:
            await self._resume(token)
        return "ok"

    async def _insist(self) -> Outcome:
        """Go on with what is known, again and again, until the broker is back."""
        try:
            token = str(self._stream.token)
        except ClientClosed:
            return "info"  # it may have been sent
        async with asyncio.timeout(self._patience):
            while True:
                seen = len(self.events)
                try:
                    await self._resume(token)
                except BrokerUnavailable:
                    del self.events[seen:]  # the token is that of before
                    await asyncio.sleep(RETRY_SECONDS)
                except JobFailed as error:
                    self._failed(error)
                    return "ok"
                except StreamLost:
                    return "lost"
                else:
                    return "ok"

    async def _begin(self, count: int) -> str | None:
        """Read the first events; return the token to go on with, None if that was the end."""
        reading = aiter(self._stream)
        for _ in range(count):
            try:
                self.events.append(await anext(reading))
            except StopAsyncIteration:
                return None
        return None if self._stream.finished else str(self._stream.detach())

    async def _resume(self, token: str) -> None:
        """Go on as a new process does: with nothing but the token."""
        self.restarts += 1
        async with FaultClient(self._site, self._client.tenant) as client:
            async for event in client.resume(token, timeout=self._patience):
                self.events.append(event)

    def _failed(self, error: JobFailed) -> None:
        """Note the end that the client raises instead of giving it."""
        count = 0
        for event in self.events:
            if isinstance(event, ResetEvent):
                count = 0
            elif isinstance(event, TokensEvent):
                count += len(event.ids)
        end = ErrorEvent(
            index=count, code=error.code, message=str(error), retryable=error.retryable
        )
        self.events.append(end)


@asynccontextmanager
async def _cancelling(stream: Stream, seconds: float | None) -> AsyncIterator[None]:
    """Cancel a job after a while, if it is still being read then."""

    async def later(seconds: float) -> None:
        await asyncio.sleep(seconds)
        with contextlib.suppress(ArilError):
            await stream.cancel()

    task = None if seconds is None else asyncio.create_task(later(seconds))
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

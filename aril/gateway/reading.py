"""The streams of one request, read as one, without a task or a timer a token.

async with reading:
while not reading.over:
await reading.wait()
for at, event in reading.arrived():
...
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, Self

from aril.errors import BadToken, ClientClosed, JobFailed, JobTimeout, StreamLost
from aril.gateway.failures import Refusal
from aril.schemas import TokensEvent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import TracebackType

    from aril.gateway.keys import Caller
    from aril.gateway.site import Site
    from aril.schemas import Event
    from aril.stream import Stream

Begun = Literal["new", "resumed", "read"]
LOST_STATUS = 404


def ends_jobs(error: BaseException | None) -> bool:
    """Whether who stops reading by `error` has its jobs ended, too.

    So it is with a caller that has left or waited too long, with the rest of an answer that failed,
    and in a drain. All else is wrong with the reading alone: the jobs are well, and can be read.
    """
    ending = JobFailed | JobTimeout | TimeoutError | ClientClosed
    return not isinstance(error, Exception) or isinstance(error, ending)


class Reading:
    """One request's answers. An async context manager: jobs are sent when it is entered.

    A reader who leaves before the end cancels the jobs, unless `kept`: then they run on. So they do
    when only the reading has failed.
    """

    def __init__(
        self, site: Site, streams: Sequence[Stream], *, caller: Caller, begun: Begun, kept: bool
    ) -> None:
        self.streams = streams
        self.job = streams[0].job
        self.begun = begun
        self.kept = kept
        self.resumable = False  # its reader was told where it stands
        self.failed = False
        self.waiting_since: float | None = None
        self._site = site
        self._caller = caller
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._unfinished = [*range(len(streams))]
        self._failure: Exception | None = None
        self._counted: AbstractContextManager[None] | None = None
        self._asked_at = self._loop.time()
        self._first_at: float | None = None
        self._last_at = 0.0
        self._tokens = 0
        self._untold = 0

    async def __aenter__(self) -> Self:
        """Send the jobs, or begin to read. Raises `ArilError`; `Refusal` for what is not kept."""
        counted = self._site.reading(len(self.streams), caller=self._caller, reader=self)
        counted.__enter__()
        self._counted = counted
        try:
            await self._start()
        except BaseException as error:
            self.failed = not isinstance(error, asyncio.CancelledError)
            self._close()
            if isinstance(error, BadToken | StreamLost):
                raise Refusal(LOST_STATUS, str(error), code="stream_lost") from None
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, Exception):
            self.failed = True
            self.kept = self.kept or not ends_jobs(error)
        self._close()
        self._leave()
        self._failure = None  # its traceback holds who has raised it: us

    @property
    def over(self) -> bool:
        """Whether all answers have ended and were taken."""
        return not self._unfinished

    def fail(self, error: Exception, *, keep: bool = False) -> None:
        """End it with `error`, behind what has arrived; with `keep` for who can go on elsewhere."""
        self.kept = self.kept or (keep and self.resumable)
        self._failure = self._failure or error
        self._arrived.set()

    async def wait(self) -> None:
        """Wait until something has arrived. Raises what `fail` was given."""
        if self._untold:
            self._site.metrics.tokens.inc(self._untold)
            self._untold = 0
        if self._failure is not None:
            raise self._failure
        if not self._arrived.is_set():
            self.waiting_since = self._loop.time()
            await self._arrived.wait()
            self.waiting_since = None
        self._arrived.clear()

    def arrived(self) -> Iterator[tuple[int, Event]]:
        """Take what has arrived, choice by choice in turn. Raises what the streams raise."""
        found = True
        while found:
            found = False
            for at in [*self._unfinished]:
                stream = self.streams[at]
                event = stream.poll()
                if event is None:
                    continue
                found = True
                if isinstance(event, TokensEvent):
                    self._note(len(event.ids))
                elif stream.finished:
                    self._unfinished.remove(at)
                yield at, event

    def _note(self, tokens: int) -> None:
        self._last_at = self._loop.time()
        if self._first_at is None:
            self._first_at = self._last_at
        self._tokens += tokens
        self._untold += tokens

    async def _start(self) -> None:
        wake = self._arrived.set
        starting = asyncio.gather(
            *(stream.start(wake) for stream in self.streams), return_exceptions=True
        )
        try:
            # Broken off in the middle, nobody would know whether a job was sent: it is waited for.
            started = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(lambda _: self._leave())
            raise
        for each in started:
            if isinstance(each, BaseException):
                self._leave()
                raise each

    def _leave(self) -> None:
        for stream in self.streams:
            stream.leave(cancel=not self.kept)

    def _close(self) -> None:
        if self._counted is not None:
            self._counted.__exit__(None, None, None)
            self._counted = None
        if self._untold:
            self._site.metrics.tokens.inc(self._untold)
            self._untold = 0
        self._site.metrics.read(
            begun=self.begun,
            ended=[self._end_of(stream) for stream in self.streams],
            first=None if self._first_at is None else self._first_at - self._asked_at,
            per_token=self._token_seconds() if self.over else None,
        )

    def _end_of(self, stream: Stream) -> str:
        if self.failed:
            return "failed"
        return "done" if stream.finished else "left"

    def _token_seconds(self) -> float | None:
        """Return how long a token took behind the first; None if there were not two."""
        if self._first_at is None or self._tokens <= len(self.streams):
            return None
        return (self._last_at - self._first_at) / (self._tokens / len(self.streams) - 1)

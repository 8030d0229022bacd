"""One job as a thread sees it: events, the whole answer, and the token to go on from."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Self

from aril.blocking.handover import Handover
from aril.errors import JobFailed
from aril.schemas import DoneEvent

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Generator, Iterator
    from types import TracebackType

    from aril import stream as asynchronous
    from aril.blocking.loop_thread import LoopThread
    from aril.schemas import Event
    from aril.stream import Completion, ResumeToken


class Stream:
    """The events of one job: iterate it once, or call `result`. For one thread at a time.

    Nothing is sent before the first of `start`, iteration, `result` or `with`. A caller that stops
    iterating, is interrupted, or leaves the `with` block early cancels the job, unless `keep` was
    called; `detach` leaves it running. Raises `JobFailed`, `JobConflict`, `JobTimeout`,
    `StreamLost`, `BrokerUnavailable`.
    """

    def __init__(
        self, owner: object, thread: LoopThread, stream: asynchronous.Stream, *, ahead: int
    ) -> None:
        """Wrap a stream that belongs to a loop's thread; `owner` lives as long as this one."""
        self.job: str = stream.job
        self._owner = owner
        self._thread = thread
        self._stream = stream
        self._handover = Handover(ahead)
        self._filling: asyncio.Task[None] | None = None  # from the first iteration on
        self._token: ResumeToken | None = None  # the loop's stream is ahead of the caller's then
        self._over = False
        self._left = False

    @property
    def token(self) -> ResumeToken:
        """Where the caller stands now. Raises `ClientClosed` before the stream has started."""
        return self._token or self._stream.token

    @property
    def finished(self) -> bool:
        """Whether the job's terminal was handed over."""
        return self._over

    def start(self) -> Self:
        """Send the job, or begin to read a resumed one; harmless when that is done."""
        self._thread.run(self._stream.start)
        return self

    def result(self) -> Completion:
        """Wait for the end and return the whole answer, resets withdrawn."""
        if self._filling is None:
            try:
                return self._thread.run(self._stream.result)
            finally:
                self._over = self._stream.finished
        for _ in self:
            pass
        return self._thread.run(self._stream.result)

    def keep(self) -> Self:
        """From now on leave the job running when this stream is left early, or times out."""
        self._stream.keep()
        return self

    def cancel(self) -> None:
        """Ask the worker to end the job; its stream then ends in `JobFailed` (cancelled)."""
        self._thread.run(self._stream.cancel)

    def detach(self) -> ResumeToken:
        """Stop reading but let the job run; return the token to resume it with."""
        token = self.token
        self._left = True
        self._thread.run(partial(self._quit, detached=True))
        return token

    def close(self) -> None:
        """Stop reading, without waiting; cancels the job unless its end has been seen."""
        if not self._left:
            self._left = True
            self._thread.soon(partial(self._quit, detached=False))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self._events()

    def _events(self) -> Generator[Event, None, None]:
        # A generator, because it is closed when a caller drops it in mid-answer.
        try:
            if self._filling is None and not (self._over or self._left):
                self._thread.run(self._fill)
            while not (self._over or self._left):
                self._thread.check()
                given = self._handover.take(self._thread.call_soon)
                if given is None:
                    break
                self._token = given.token
                self._over = isinstance(given.event, DoneEvent)
                yield given.event
        except JobFailed:
            self._over = True
            raise
        finally:
            self.close()

    async def _fill(self) -> None:
        await self._stream.start()
        self._token = self._stream.token
        self._filling = self._handover.filled_from(self._stream)

    async def _quit(self, *, detached: bool) -> None:
        self._handover.leave()
        if detached:
            self._stream.detach()
        else:
            await self._stream.aclose()
        if self._filling is not None:
            self._filling.cancel()

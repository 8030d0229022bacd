"""From the loop's thread to a caller's: the events of one stream, as many as have arrived.

Who takes goes into the loop only to make room again, so an event costs two moves through a queue.
The loop is ahead of the caller by `limit` events at most, or by an inbox's bytes; then the log
holds them, as it does for `aril.Client`.
"""

from __future__ import annotations

import asyncio
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

from aril.blocking.call import WAIT_SECONDS
from aril.errors import ClientClosed
from aril.router import INBOX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.schemas import Event
    from aril.stream import ResumeToken, Stream


class Given(NamedTuple):
    """An event, and where a caller stands who has been given it."""

    event: Event
    token: ResumeToken
    behind: int
    """All bytes of the stream's records, up to this one's."""


class End(NamedTuple):
    """Nothing more comes, for this reason."""

    error: BaseException | None


class Handover:
    """A task of the loop puts; one thread at a time takes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: SimpleQueue[Given | End] = SimpleQueue()
        self._put_bytes = 0  # written by the loop
        self._taken_bytes = 0  # written by who takes
        self._full = False
        self._room = asyncio.Event()
        self._left = False

    def filled_from(self, stream: Stream) -> asyncio.Task[None]:
        """Begin to put the events of a stream; the task, if it is cancelled, leaves the stream.

        Who takes is told of that as ClientClosed: what came is not all, unless nobody wants more.
        """
        task = asyncio.create_task(self._fill(stream))
        task.add_done_callback(self._end)
        return task

    def leave(self) -> None:
        """Note that whoever takes wants nothing more: what ends the task then is no error."""
        self._left = True

    def take(self, call_soon: Callable[[Callable[[], object]], None]) -> Given | None:
        """Wait for the next event; None after the last. Raises what the stream raised.

        `call_soon` has something called in the loop.
        """
        given = self._next()
        if isinstance(given, End):
            self._waiting.put(given)  # for who asks again
            if given.error is not None:
                raise given.error
            return None
        self._taken_bytes = given.behind
        if self._full and self._roomy():
            self._full = False
            call_soon(self._room.set)
        return given

    def _next(self) -> Given | End:
        while True:
            try:
                return self._waiting.get(timeout=WAIT_SECONDS)
            except Empty:
                continue

    async def _fill(self, stream: Stream) -> None:
        async with stream:
            async for event in stream:
                self._put_bytes = stream.taken_bytes
                self._waiting.put(Given(event, stream.token, self._put_bytes))
                if self._is_over(self._limit, INBOX_BYTES):
                    await self._until_half()

    async def _until_half(self) -> None:
        self._room.clear()
        self._full = True  # before the look: who takes meanwhile sees it, or we see what was taken
        if not self._roomy():
            await self._room.wait()
        self._full = False

    def _is_over(self, events: int, size: int) -> bool:
        return self._waiting.qsize() >= events or self._put_bytes - self._taken_bytes >= size

    def _roomy(self) -> bool:
        return not self._is_over(self._limit // 2 + 1, INBOX_BYTES // 2 + 1)

    def _end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
        else:
            error = None if self._left else ClientClosed("the client was closed")
        self._waiting.put(End(error))

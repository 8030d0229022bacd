"""Server-sent events: sent as they come, silence is kept alive, who leaves is noticed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final, TypedDict, TypeVar

from starlette.responses import Response

from aril.gateway.failures import LEFT, Refusal, failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from starlette.types import Receive, Scope, Send

ResultT = TypeVar("ResultT")

DONE: Final = b"data: [DONE]\n\n"
KEEPALIVE: Final = b": still there\n\n"
HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold tokens back
}

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def to_json(data: object) -> str:
    """Return JSON in one line, whatever its reader takes for the end of one.

    Python's `str.splitlines`, by which clients read streams, splits at more than a stream does.
    """
    made = _encode(data)
    if made.isascii():  # all others of its separators are control characters, which JSON escapes
        return made
    return made.replace("\x85", r"\u0085").replace("\u2028", r"\u2028").replace("\u2029", r"\u2029")


def event(data: object, *, id: str | None = None, kind: str | None = None) -> bytes:  # noqa: A002
    """Return one event; `data` is what JSON can say, `id` what a reader goes on from."""
    head = "" if kind is None else f"event: {kind}\n"
    if id is not None:
        head += f"id: {id}\n"
    return f"{head}data: {to_json(data)}\n\n".encode()


class Rhythm(TypedDict):
    """Seconds of a stream: of silence before a comment, and of a write that nobody takes."""

    keepalive: float
    longest: float


class EventStream(Response):
    """A response whose body is made while it is sent.

    `pieces` yields whole events as bytes, one or several at a time, and is closed when it has ended
    or the caller has left; what it yields waits until the caller has taken what came before (the
    connection's own buffer aside). If it raises, the caller is told in an event of OpenAI's form.

    With `hold` nothing is sent before the first piece, or `keepalive` seconds: an error that comes
    first has a status of its own then. A caller that takes nothing of a write for `longest` seconds
    is taken for one that has left. For HEAD nothing is made.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        keepalive: float,
        longest: float,
        headers: dict[str, str] | None = None,
        hold: bool = False,
    ) -> None:
        super().__init__(status_code=200, headers=HEADERS | (headers or {}))
        del self.headers["content-length"]
        self._pieces = pieces
        self._keepalive = keepalive
        self._longest = longest
        self._hold = hold
        self._begun = False
        self._busy = asyncio.Lock()
        self._quiet = True
        self._put_at = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if scope["method"] == "HEAD":
            await self._put(send, b"", more=False)
            return
        if not self._hold:
            await self._put(send, b"")
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(_left(receive))
        both: set[asyncio.Task[None]] = {sending, leaving}
        try:
            while not await _ended(both, within=self._keepalive):
                if self._busy.locked():
                    if self._stuck():
                        break
                elif self._quiet and not await self._kept_alive(send):
                    break
                self._quiet = True
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
        try:
            if not sending.cancelled():
                sending.result()
        finally:  # the traceback of what it raises holds this frame, and that the answer
            del sending, both, task

    def _stuck(self) -> bool:
        # Looked at now and then: a timer for each write would cost more than the write.
        return asyncio.get_running_loop().time() - self._put_at > self._longest

    async def _kept_alive(self, send: Send) -> bool:
        try:
            async with asyncio.timeout(self._longest):
                await self._put(send, KEEPALIVE)
        except TimeoutError:
            return False
        return True

    async def _send(self, scope: Scope, send: Send) -> None:
        try:
            async for piece in self._pieces:
                self._quiet = False
                await self._put(send, piece)
        except Exception as error:
            if not self._begun:
                raise
            await self._put(send, event(failure(error, scope).body))
        finally:
            if (close := getattr(self._pieces, "aclose", None)) is not None:
                await close()
        await self._put(send, b"", more=False)

    async def _put(self, send: Send, piece: bytes, *, more: bool = True) -> None:
        async with self._busy:
            self._put_at = asyncio.get_running_loop().time()
            if not self._begun:
                self._begun = True
                headers = self.raw_headers
                await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": piece, "more_body": more})


async def unless_left(receive: Receive, work: Coroutine[None, None, ResultT]) -> ResultT:
    """Await something for as long as the caller of a request waits for it.

    Raises `Refusal` (499) where the caller has gone: the work was cancelled then.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(receive))
    both: set[asyncio.Task[None] | asyncio.Task[ResultT]] = {working, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.wait(both)
    if working.cancelled():
        raise Refusal(LEFT, "the caller has left")
    try:
        return working.result()
    finally:  # the traceback of what it raises holds this frame, and that the request
        del working, both, task


async def _ended(tasks: set[asyncio.Task[None]], *, within: float) -> bool:
    done, _ = await asyncio.wait(tasks, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

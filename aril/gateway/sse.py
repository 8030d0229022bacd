"""Server-sent events: sent as they come, silence is kept alive, who leaves is noticed."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.types import Receive, Scope, Send

DONE: Final = b"data: [DONE]\n\n"
KEEPALIVE: Final = b": still there\n\n"
HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold tokens back
}


def event(data: object, *, id: str | None = None, kind: str | None = None) -> bytes:  # noqa: A002
    """Return one event; `data` is what JSON can say, `id` what a reader goes on from."""
    head = "" if kind is None else f"event: {kind}\n"
    if id is not None:
        head += f"id: {id}\n"
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"{head}data: {text}\n\n".encode()


class EventStream(Response):
    """A response whose body is made while it is sent.

    `pieces` yields bytes and is closed when it has ended or the caller has left; what it yields
    waits until the caller has taken what came before (the connection's own buffer aside).
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        keepalive: float,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(status_code=200, headers=HEADERS | (headers or {}))
        del self.headers["content-length"]
        self._pieces = pieces
        self._keepalive = keepalive

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send it."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.wait({sending, leaving})
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        pieces = self._pieces
        coming: asyncio.Task[bytes] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(pieces))
                done, _ = await asyncio.wait({coming}, timeout=self._keepalive)
                if not done:
                    await send(_body(KEEPALIVE))
                    continue
                ended = isinstance(coming.exception(), StopAsyncIteration)
                piece, coming = b"" if ended else coming.result(), None
                await send(_body(piece, more=not ended))
                if ended:
                    return
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait({coming})
            if (close := getattr(pieces, "aclose", None)) is not None:
                await close()


def _body(piece: bytes, *, more: bool = True) -> dict[str, object]:
    return {"type": "http.response.body", "body": piece, "more_body": more}


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Server-sent events with Starlette (or FastAPI), which a browser resumes after a lost connection.

    ARIL_BOOTSTRAP=localhost:9092 ARIL_TENANT=acme uvicorn --factory sse:app

    const answer = new EventSource("/answer?prompt=Hello");
    answer.addEventListener("tokens", (event) => show(JSON.parse(event.data).text));
    answer.addEventListener("reset", () => clear());
    answer.addEventListener("done", (event) => {
      show(JSON.parse(event.data).text);
      answer.close();
    });
    answer.addEventListener("failed", () => answer.close());

Each event's id is a resume token. A browser that comes back sends it as Last-Event-ID and gets
what it has not seen, from this process or another one: so jobs are kept when a reader goes away.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from aril import ArilError, Client, DoneEvent, ResetEvent, ResumeToken, TokensEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from aril import Stream


def app(client: Client | None = None) -> Starlette:
    """Return the application; its client is open while it runs."""
    shared = client or Client.from_env()
    reading: WeakValueDictionary[str, Stream] = WeakValueDictionary()

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with shared:
            yield

    async def answer(request: Request) -> Response:
        try:
            if seen := request.headers.get("last-event-id"):
                token = ResumeToken.parse(seen)
                if token.job in reading:  # by a connection whose loss nobody has noticed yet
                    await reading[token.job].aclose()
                stream = shared.resume(token)
            else:
                stream = shared.stream(request.query_params.get("prompt", ""))
            reading[stream.job] = await stream.keep().start()
        except (ArilError, ValueError) as error:
            return PlainTextResponse(str(error), 400 if isinstance(error, ValueError) else 503)
        return StreamingResponse(events(stream), media_type="text/event-stream")

    return Starlette(routes=[Route("/answer", answer)], lifespan=lifespan)


async def events(stream: Stream) -> AsyncIterator[str]:
    """Write a stream's events, the first one without data: it says where to resume from."""
    yield f"id: {stream.token}\n\n"
    try:
        async for event in stream:
            match event:
                case TokensEvent(text=text):
                    yield message(stream, "tokens", text=text)
                case ResetEvent():
                    yield message(stream, "reset")
                case DoneEvent(text=text, finish_reason=reason):
                    yield message(stream, "done", text=text, finish_reason=reason)
    except ArilError as error:
        yield message(stream, "failed", text=str(error))


def message(stream: Stream, kind: str, **data: str) -> str:
    """Write one event."""
    return f"id: {stream.token}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"

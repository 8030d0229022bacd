"""A gateway with nothing behind it, for its page: real chunks of answers that questions ask for.

The answer is a function of the question, and its tokens come by the clock, so that a process which
is killed and started again goes on as a real gateway would: from `Last-Event-ID`, or anew for the
same `Idempotency-Key`. What a question's first word asks for:

    count N     N tokens, `0 ` to `N-1 `
    echo …      what follows, a word a token
    late        nothing, until it is cancelled
    refuse      an error response with a limit
    break       three tokens, then an error
    cut N       as count, but every connection ends after five tokens
    tail        three tokens, then an end with text of its own, cut behind it the first time
    withdraw    three tokens that are withdrawn, then three others
    busy        as `count 3`, once the gateway has been asked three times
    full        an error response that the queue is full, each time
    limit N     as cut, and every second request is one too many for its key
"""

from __future__ import annotations

import argparse
import asyncio
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from aril.errors import JobFailed
from aril.gateway import page
from aril.gateway.failures import HANDLERS, Refusal
from aril.gateway.settings import GatewaySettings
from aril.gateway.site import Site, site_of
from aril.gateway.sse import DONE, EventStream, event
from aril.openai.answers import Answer
from aril.openai.chunks import Chunks
from aril.openai.errors import Refused, Withdrawn, failure_of
from aril.openai.requests import CHAT, request_of
from aril.openai.responses import response_of
from aril.schemas import DoneEvent, ErrorCode, JobError, ResetEvent, Timings, TokensEvent, Usage
from aril.stream import ResumeToken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.requests import Request
    from starlette.responses import Response

    from aril.connection import Connection
    from aril.openai.shapes import ChatChunk, TextChunk
    from aril.schemas import Event

PARTITION: Final = 3
REPLY_FROM: Final = 4_711
DIGEST: Final = "5eed" * 16
BASE_DIGEST: Final = "ba5e" * 16
SEED: Final = 8_518_358_857_923_996_001  # no double is this number
EVERY: Final = 5  # tokens of a connection that is cut
ADAPTERS: Final = ("terse", "<img src=x onerror=alert(1)>")
BUSY: Final = 3


class Stub:
    """What a process remembers: who was cancelled, and what it was asked."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.cancelled: dict[str, asyncio.Event] = {}
        self.asked: list[dict[str, Any]] = []

    def times(self, job: str) -> int:
        """Return how often a job was asked for."""
        return sum(each["key"] == job for each in self.asked)


class Line(NamedTuple):
    """An event, or an error, where a reader stands behind it, and whether the connection ends."""

    event: Event | Exception
    tokens: int
    resets: int = 0
    cut: bool = False


def script_of(question: str) -> Iterator[Line]:
    """Yield what the log has of the answer to a question."""
    verb, _, rest = question.partition(" ")
    if verb == "echo":
        words = [f"{word} " for word in rest.split(" ")]
    elif verb in {"count", "cut", "limit"}:
        words = [f"{number} " for number in range(int(rest))]
    else:
        words = ["0 ", "1 ", "2 "]
    resets = 0
    if verb == "withdraw":
        for at, word in enumerate(("not ", "this ", "one ")):
            yield Line(TokensEvent(at, (at,), word), at + 1)
        resets = 1
        yield Line(ResetEvent(len(words)), 0, resets)
    for at, word in enumerate(words):
        cut = verb in {"cut", "limit"} and at % EVERY == EVERY - 1
        yield Line(TokensEvent(at, (at,), word), at + 1, resets, cut)
    if verb == "break":
        yield Line(JobError(ErrorCode.INTERNAL, "the engine broke"), len(words), resets)
    text = "the tail" if verb == "tail" else ""
    yield Line(done_of(len(words), text), len(words), resets, cut=verb == "tail")


def done_of(count: int, text: str) -> DoneEvent:
    """Return the end of an answer."""
    return DoneEvent(
        index=count,
        text=text,
        finish_reason="stop",
        usage=Usage(7, count),
        adapter="terse",
        digest=DIGEST,
        base="stub-1B",
        base_digest=BASE_DIGEST,
        seed=SEED,
        timings=Timings(3.0, 40.0, 40.0 + 50.0 * count),
    )


async def models(request: Request) -> Response:
    """List the backbone and two adapters, one of them with a name that no tenant may give."""
    site_of(request).caller(request)
    data = [{"id": name, "object": "model"} for name in ("aril", *ADAPTERS)]
    return JSONResponse({"object": "list", "data": data})


async def chat(request: Request) -> Response:
    """Answer."""
    site_of(request).caller(request)
    stub: Stub = request.app.state.stub
    body = await request.json()
    key = request.headers.get("idempotency-key", uuid.uuid4().hex)
    last = request.headers.get("last-event-id")
    stub.asked.append({"key": key, "last": last, "body": body})
    question = body["messages"][-1]["content"]
    if question.startswith("refuse"):
        raise Refused(
            "max_tokens: at most 100, not 4000",
            param="max_tokens",
            code=ErrorCode.LIMIT_EXCEEDED,
            limit=100,
            given=4000,
        )
    if question.startswith("limit") and stub.times(key) % 2 == 0:
        raise Refusal(429, "too fast", code="rate_limit_exceeded", limit=1, retry_after_ms=50)
    if question.startswith("full"):
        raise JobFailed(
            key, ErrorCode.OVERLOADED, "too much", retryable=True, limit=1, retry_after_ms=50
        )
    if question.startswith("busy") and stub.times(key) <= BUSY:
        error = {"message": "drains", "type": "server_error", "code": "unavailable"}
        return JSONResponse({"error": error}, 503, {"retry-after": "0"})
    place = ResumeToken(key, PARTITION, REPLY_FROM) if last is None else ResumeToken.parse(last)
    # The adapter's name is not one that the contract lets through.
    asked = request_of(CHAT, body | {"model": "aril"})
    chunks = Chunks(asked, id=f"chatcmpl-{PARTITION}.{REPLY_FROM}.{key}", created=0)
    return EventStream(_pieces(stub, question, place, chunks), keepalive=1.0, longest=600.0)


async def _pieces(
    stub: Stub, question: str, place: ResumeToken, chunks: Chunks
) -> AsyncIterator[bytes]:
    job = place.job
    cancelled = stub.cancelled.setdefault(job, asyncio.Event())
    opening = [event(chunk) for chunk in chunks.opening(0)]
    late = question.startswith("late")
    for line in script_of(question):
        of_earlier = (line.resets, line.tokens) <= (place.resets, place.count)
        if of_earlier and not isinstance(line.event, DoneEvent | Exception):
            continue
        at = str(ResumeToken(job, PARTITION, REPLY_FROM, line.tokens, line.resets))
        happens = line.event
        if await _within(None if late else stub.delay, cancelled):
            happens = JobError(ErrorCode.CANCELLED, "the caller does not want it any more")
        try:
            made = _made(chunks, job, happens)
        except (JobError, Withdrawn) as error:
            yield event(failure_of(error).body)
            return
        pieces = [event(chunk) for chunk in made]
        if made:
            pieces[-1] = event(made[-1], id=at)
        if question.startswith("tail") and line.cut and stub.times(job) == 1:
            # The text of the end, but not the end: it is not behind a place of its own.
            yield event(made[0], id=at)
            return
        yield b"".join([*opening, *pieces])
        opening = []
        if line.cut and not isinstance(line.event, DoneEvent):
            return
    yield b"".join([*(event(chunk) for chunk in chunks.closing()), DONE])


def _made(chunks: Chunks, job: str, happens: Event | Exception) -> list[ChatChunk | TextChunk]:
    if isinstance(happens, Exception):
        raise happens
    return chunks.of(0, job, happens)


async def _within(seconds: float | None, happened: asyncio.Event) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await happened.wait()
    except TimeoutError:
        return False


async def whole(request: Request) -> Response:
    """Answer with all of an answer, by its id."""
    site_of(request).caller(request)
    *_, job = request.path_params["id"].split(".", 2)
    stub: Stub = request.app.state.stub
    (body, *_) = [each["body"] for each in stub.asked if each["key"] == job]
    answer = Answer(job)
    for line in script_of(body["messages"][-1]["content"]):
        if not isinstance(line.event, Exception):
            answer.add(line.event)
    asked = request_of(CHAT, body | {"model": "aril"})
    told = response_of(asked, [answer], id=request.path_params["id"], created=0)
    return JSONResponse(told)


async def cancel(request: Request) -> Response:
    """End a job, by the id of its answer."""
    site_of(request).caller(request)
    stub: Stub = request.app.state.stub
    *_, job = request.path_params["id"].split(".", 2)
    stub.cancelled.setdefault(job, asyncio.Event()).set()
    return JSONResponse({"id": request.path_params["id"], "cancelled": True})


async def told(request: Request) -> Response:
    """Tell a test what was asked."""
    return JSONResponse(request.app.state.stub.asked)


def make_app(settings: GatewaySettings, delay: float) -> Starlette:
    """Return the application; `delay` is in seconds a token."""
    app = Starlette(
        routes=[
            *page.ROUTES,
            Route("/v1/models", models),
            Route(CHAT, chat, methods=["POST"]),
            Route(f"{CHAT}/{{id}}", whole),
            Route(f"{CHAT}/{{id}}/cancel", cancel, methods=["POST"]),
            Route("/stub/asked", told),
        ],
        exception_handlers=HANDLERS,
    )
    app.state.site = Site(settings, cast("Connection", None))  # nothing here asks the queue
    app.state.stub = Stub(delay)
    return app


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--delay", type=float, default=0.05)
    parser.add_argument("--tenant")
    parser.add_argument("--keys", type=Path)
    given = parser.parse_args()
    settings = GatewaySettings.model_validate(
        {"gateway_tenant": given.tenant, "gateway_keys": given.keys}
    )
    app = make_app(settings, given.delay)
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()

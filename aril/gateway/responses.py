"""`/v1/responses`: OpenAI's Responses interface, as far as it is text in and text out.

A response is a job, and what is told of it is read from the log: nothing is kept here between
requests, so any gateway tells the same of it. docs/streams.md says what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aril.errors import ArilError, BadToken, JobFailed, JobTimeout, StreamLost
from aril.gateway.places import id_of, made_at, new_job, place_of
from aril.gateway.site import site_of
from aril.gateway.sse import EventStream
from aril.gateway.sse import event as frame
from aril.openai.errors import BAD_REQUEST, Refused
from aril.openai.response_events import ResponseEvents
from aril.openai.response_requests import RESPONSES, response_request
from aril.schemas import ErrorEvent, is_job_id
from aril.tail import Tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from starlette.requests import Request
    from starlette.types import Receive

    from aril.client import Client
    from aril.openai.jobs import JobFields
    from aril.openai.response_events import Typed
    from aril.openai.response_requests import ResponseAsked
    from aril.stream import ResumeToken

ResultT = TypeVar("ResultT")

PREFIX: Final = "resp_"
LIVE_SECONDS: Final = 3_600.0
CANCEL_SECONDS: Final = 2.0
"""How long the end of a job that was told to end is waited for."""
KEY: Final = "idempotency-key"
LEFT: Final = 499
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
NOT_DELETED: Final = (
    "an answer is kept as long as its topic keeps it: nothing here can delete it"
    " (POST …/cancel ends one that is not finished)"
)


async def create(request: Request) -> Response:
    """POST: send the job; answer with it at once, with its events, or with its end."""
    site = site_of(request)
    caller = site.caller(request)
    client = site.client(caller.tenant)
    body = await _json_of(request, site.settings.gateway_body_bytes)
    asked = response_request(body, bases={site.settings.gateway_model})
    key = request.headers.get(KEY)
    if key is not None and not is_job_id(key):
        raise Refused("idempotency-key: must be 1 to 64 of A-Z a-z 0-9 . _ -", param=KEY)
    with site.reading():
        options: JobFields = {**asked.job, "job_id": key or new_job(caller.tenant)}
        stream = client.stream(**options)
        await stream.start()
        place = stream.detach()
        log = _events_of(place, asked)
        if asked.background and not asked.stream:
            return JSONResponse(log.response())
        kept = asked.background or key is not None
        if not asked.stream:
            whole = _whole(request, client, place, asked)
            try:
                return await _unless_left(request.receive, whole)
            except (HTTPException, JobTimeout):
                if not kept:
                    await _cancel(client, place.job)
                raise
    pieces = _live(request, client, place, log, kept=kept, at_its_first=key is not None)
    return EventStream(pieces, keepalive=site.settings.gateway_keepalive_seconds)


async def retrieve(request: Request) -> Response:
    """GET: the response as the log has it, or its events behind `starting_after`."""
    site = site_of(request)
    caller = site.caller(request)
    client = site.client(caller.tenant)
    query = request.query_params
    try:
        place = place_of(request.path_params["id"], caller.tenant)
        if query.get("stream", "").lower() not in {"true", "1"}:
            with site.reading():
                return JSONResponse(await _as_it_stands(client, place))
        after = _number(query.get("starting_after", request.headers.get("last-event-id")))
        async with Tail(client.link, client.replies_topic, place):
            pass  # while an error still has a status
    except (BadToken, StreamLost) as error:
        return _lost(error)
    pieces = _live(request, client, place, _events_of(place), kept=True, after=after)
    return EventStream(pieces, keepalive=site.settings.gateway_keepalive_seconds)


async def cancel(request: Request) -> Response:
    """POST …/cancel: end the job, and tell how it stands then."""
    site = site_of(request)
    caller = site.caller(request)
    client = site.client(caller.tenant)
    try:
        place = place_of(request.path_params["id"], caller.tenant)
        with site.reading():
            told = await _as_it_stands(client, place)
            if told["status"] in {"queued", "in_progress"}:
                await client.cancel(place.job)
                told = await _as_it_stands(client, place, seconds=CANCEL_SECONDS)
            return JSONResponse(told)
    except (BadToken, StreamLost) as error:
        return _lost(error)


async def delete(request: Request) -> Response:
    """DELETE: refused, rather than to say that something is gone which is not."""
    site_of(request).caller(request)
    raise HTTPException(405, NOT_DELETED, {"allow": "GET, HEAD"})


def _events_of(place: ResumeToken, asked: ResponseAsked | None = None) -> ResponseEvents:
    told = None if asked is None else asked.told
    name = id_of(place, PREFIX)
    return ResponseEvents(name, place.job, created=made_at(place.job), told=told)


async def _whole(
    request: Request, client: Client, place: ResumeToken, asked: ResponseAsked
) -> Response:
    """Wait for the end. Raises `JobFailed` where it is an error, `JobTimeout`."""
    longest = site_of(request).settings.gateway_wait_seconds
    try:
        async with asyncio.timeout(longest), Tail(client.link, client.replies_topic, place) as tail:
            events = []
            while not tail.ended:
                events += [each for step in await tail.more(longest) for each in step.events]
            first = replace(place, reply_from=tail.reply_from)
    except TimeoutError:
        raise JobTimeout(place.job, longest) from None
    if isinstance(end := events[-1], ErrorEvent):
        raise _failed(place.job, end)
    log = _events_of(first, asked)
    log.opening()
    for each in events:
        log.of(each)
    return JSONResponse(log.response())


async def _as_it_stands(
    client: Client, place: ResumeToken, *, seconds: float = 0.0
) -> dict[str, object]:
    """Return the response by what is in the log; with `seconds`, its end if it comes within."""
    log = _events_of(place)
    log.opening()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    async with Tail(client.link, client.replies_topic, place) as tail:
        while steps := await tail.more(max(0.0, until - loop.time())):
            for step in steps:
                for each in step.events:
                    log.of(each)
        log.begun = tail.begun
    return log.response()


async def _live(
    request: Request,
    client: Client,
    place: ResumeToken,
    log: ResponseEvents,
    *,
    kept: bool,
    after: int = -1,
    at_its_first: bool = False,
) -> AsyncIterator[bytes]:
    """Yield events behind number `after`, all at once that wait; ends at one that is withdrawn.

    With `at_its_first` nothing comes before the job's first event: it may have been sent before,
    and its answer is then elsewhere. A caller that leaves ends a job that is not `kept`.
    """
    ended = False
    try:
        with site_of(request).reading():
            async with Tail(client.link, client.replies_topic, place) as tail:
                if not at_its_first and (first := log.opening())["sequence_number"] > after:
                    yield _frame(first)
                while not tail.ended:
                    parts: list[bytes] = []
                    steps = await tail.more(LIVE_SECONDS)
                    if at_its_first and steps:
                        at_its_first = False
                        log.id = id_of(replace(place, reply_from=tail.reply_from), PREFIX)
                        parts.append(_frame(log.opening()))
                    for step in steps:
                        for typed in (each for event in step.events for each in log.of(event)):
                            if typed["sequence_number"] <= after:
                                continue
                            parts.append(_frame(typed))
                            if typed["type"] == "error":  # the job is well: it is not ended
                                kept = True
                                yield b"".join(parts)
                                return
                    ended = tail.ended
                    if parts:
                        yield b"".join(parts)
    finally:
        if not (ended or kept):
            await _cancel(client, place.job)


async def _cancel(client: Client, job: str) -> None:
    with contextlib.suppress(ArilError, TimeoutError):
        async with asyncio.timeout(CANCEL_SECONDS):
            await client.cancel(job)


def _failed(job: str, end: ErrorEvent) -> JobFailed:
    return JobFailed(
        job,
        end.code,
        end.message,
        retryable=end.retryable,
        limit=end.limit,
        given=end.given,
        retry_after_ms=end.retry_after_ms,
    )


def _frame(typed: Typed) -> bytes:
    return frame(typed, id=str(typed["sequence_number"]), kind=typed["type"])


def _number(text: str | None) -> int:
    if text is None:
        return -1
    if not _NUMBER.fullmatch(text):
        raise Refused("starting_after: must be the number of an event", param="starting_after")
    return int(text)


def _lost(error: Exception) -> Response:
    told = {
        "message": str(error),
        "type": BAD_REQUEST,
        "param": "response_id",
        "code": "stream_lost",
        "retryable": False,
    }
    return JSONResponse({"error": told}, 404)


async def _json_of(request: Request, most: int) -> object:
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most:
            raise HTTPException(413, f"the body is longer than {most} bytes")
        parts.append(part)
    try:
        return json.loads(b"".join(parts))
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON") from None


async def _unless_left(receive: Receive, work: Coroutine[None, None, ResultT]) -> ResultT:
    """Await something for as long as the caller waits for it. Raises HTTPException 499."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(receive))
    both: set[asyncio.Task[ResultT] | asyncio.Task[None]] = {working, leaving}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in both:
            task.cancel()
        await asyncio.wait(both)
    if working.cancelled():
        raise HTTPException(LEFT, "the caller has left")
    return working.result()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


ROUTES: Final = (
    Route(RESPONSES, create, methods=["POST"]),
    Route(RESPONSES + "/{id}", retrieve, methods=["GET"]),
    Route(RESPONSES + "/{id}", delete, methods=["DELETE"]),
    Route(RESPONSES + "/{id}/cancel", cancel, methods=["POST"]),
)

"""`/v1/responses`: OpenAI's Responses interface, as far as it is text in and text out.

A response is a job, and what is told of it is read from the log: nothing is kept here between
requests, so any gateway tells the same of it. docs/streams.md says what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aril.errors import ArilError, BadToken, JobFailed, JobTimeout, StreamLost
from aril.gateway.asking import job_of, trace_of
from aril.gateway.body import asked_of
from aril.gateway.failures import Refusal
from aril.gateway.places import id_of, made_at, place_of
from aril.gateway.site import site_of
from aril.gateway.sse import EventStream, unless_left
from aril.gateway.sse import event as frame
from aril.gateway.tailing import Tailing
from aril.openai.response_events import ResponseEvents
from aril.openai.response_requests import RESPONSES, response_request
from aril.schemas import ErrorEvent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from starlette.requests import Request

    from aril.client import Client
    from aril.openai.jobs import JobFields
    from aril.openai.response_events import Typed
    from aril.openai.response_requests import ResponseAsked
    from aril.stream import ResumeToken

PREFIX: Final = "resp_"
LIVE_SECONDS: Final = 3_600.0
CANCEL_SECONDS: Final = 2.0
"""How long the end of a job that was told to end is waited for."""
_NUMBER: Final = re.compile(r"\d{1,9}", re.ASCII)
LAST: Final = "last-event-id"
GOES_ON: Final = "a response is gone on with by its id: GET …/{id}?stream=true&starting_after="
NOT_DELETED: Final = (
    "an answer is kept as long as its topic keeps it: nothing here can delete it"
    " (POST …/cancel ends one that is not finished)"
)


async def create(request: Request) -> Response:
    """POST: send the job; answer with it at once, with its events, or with its end."""
    site = site_of(request)
    caller = site.caller(request)
    if (last := request.headers.get(LAST)) is not None:
        raise Refusal(400, f"{LAST}: {GOES_ON}{last[:9]}", param=LAST)
    judge = partial(response_request, bases={site.settings.gateway_model})
    asked = await asked_of(request, site.settings.gateway_body_bytes, judge)
    job, chosen = job_of(request, caller.tenant)
    request.scope["aril.job"] = job
    with site.reading(caller=caller):
        place, sent = await _sent(
            site.client(caller.tenant), {**asked.job, **trace_of(request), "job_id": job}
        )
    log, headers = _events_of(place, asked), {"x-request-id": job}
    if asked.background and not asked.stream:
        return JSONResponse(log.response(), headers=headers)
    kept = asked.background or chosen
    reading = Tailing(site, caller, place, begun="new", kept=kept, timed=True, sent=sent)
    if asked.stream:
        pieces = _live(reading, place, log, at_its_first=chosen)
        pieces = _or_ended(reading, pieces, site.client(caller.tenant))
        return EventStream(pieces, **site.rhythm, headers=headers, hold=True)
    whole = _whole(reading, place, asked, site.settings.gateway_wait_seconds)
    try:
        told = await unless_left(request.receive, whole)
    finally:
        if not (reading.kept or reading.tail.ended):
            await _cancel(site.client(caller.tenant), place.job)
    return JSONResponse(told, headers=headers)


async def retrieve(request: Request) -> Response:
    """GET: the response as the log has it, or its events behind `starting_after`."""
    site = site_of(request)
    caller = site.caller(request)
    query = request.query_params
    with _lost_is_not_there():
        place = place_of(request.path_params["id"], caller.tenant)
        if query.get("stream", "").lower() not in {"true", "1"}:
            told = _as_it_stands(Tailing(site, caller, place), place)
            return JSONResponse(await unless_left(request.receive, told))
    after = _number(query.get("starting_after", request.headers.get(LAST)))
    reading = Tailing(site, caller, place, begun="read", timed=True)
    pieces = _live(reading, place, _events_of(place), after=after)
    return EventStream(pieces, **site.rhythm, hold=True)


async def cancel(request: Request) -> Response:
    """POST …/cancel: end the job, and tell how it stands then."""
    site = site_of(request)
    caller = site.caller(request)
    with _lost_is_not_there():
        place = place_of(request.path_params["id"], caller.tenant)
        told = await _as_it_stands(Tailing(site, caller, place), place)
        if told["status"] in {"queued", "in_progress"}:
            await site.client(caller.tenant).cancel(place.job)
            reading = Tailing(site, caller, place)
            told = await _as_it_stands(reading, place, seconds=CANCEL_SECONDS)
    return JSONResponse(told)


async def delete(request: Request) -> Response:
    """DELETE: refused, rather than to say that something is gone which is not."""
    site_of(request).caller(request)
    raise Refusal(405, NOT_DELETED, headers={"allow": "GET, HEAD"})


# --- how it is answered


async def _whole(
    reading: Tailing, place: ResumeToken, asked: ResponseAsked, longest: float
) -> dict[str, object]:
    """Wait for the end. Raises `JobFailed` where it is an error, `JobTimeout`."""
    try:
        async with asyncio.timeout(longest), reading:
            events = []
            while not reading.tail.ended:
                events += [each for step in await reading.more(longest) for each in step.events]
    except TimeoutError:
        raise JobTimeout(place.job, longest) from None
    if isinstance(end := events[-1], ErrorEvent):
        raise _failed(place.job, end)
    log = _events_of(replace(place, reply_from=reading.tail.reply_from), asked)
    log.opening()
    for each in events:
        log.of(each)
    return log.response()


async def _as_it_stands(
    reading: Tailing, place: ResumeToken, *, seconds: float = 0.0
) -> dict[str, object]:
    """Return the response by what is in the log; with `seconds`, its end if it comes within."""
    log = _events_of(place)
    log.opening()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    async with reading:
        while steps := await reading.more(max(0.0, until - loop.time())):
            for step in steps:
                for each in step.events:
                    log.of(each)
    log.begun = reading.tail.begun
    return log.response()


async def _live(
    reading: Tailing,
    place: ResumeToken,
    log: ResponseEvents,
    *,
    after: int = -1,
    at_its_first: bool = False,
) -> AsyncGenerator[bytes, None]:
    """Yield events behind number `after`, all at once that wait; ends at one that is withdrawn.

    With `at_its_first` nothing comes before the job's first event: it may have been sent before,
    and its answer is then elsewhere.
    """
    with _lost_is_not_there():
        async with reading:
            parts: list[bytes] = []
            if not at_its_first:
                parts += _frames([log.opening()], after)
            while not reading.tail.ended:
                if parts:
                    reading.resumable = True
                    yield b"".join(parts)
                parts, steps = [], await reading.more(LIVE_SECONDS)
                if at_its_first and steps:
                    at_its_first = False
                    log.id = id_of(replace(place, reply_from=reading.tail.reply_from), PREFIX)
                    parts += _frames([log.opening()], after)
                for event in (each for step in steps for each in step.events):
                    made = log.of(event)
                    parts += _frames(made, after)
                    if made[-1]["type"] == "error" and made[-1]["sequence_number"] > after:
                        reading.kept = True  # it is well; only this way of telling it is not
                        yield b"".join(parts)
                        return
            yield b"".join(parts)


async def _or_ended(
    reading: Tailing, pieces: AsyncGenerator[bytes, None], client: Client
) -> AsyncGenerator[bytes, None]:
    """Yield the same; a caller that leaves ends a job that is not kept."""
    try:
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                yield piece
    finally:
        if not (reading.tail.ended or reading.kept):
            await _cancel(client, reading.job)


def _frames(events: list[Typed], after: int) -> list[bytes]:
    return [
        frame(each, id=str(each["sequence_number"]), kind=each["type"])
        for each in events
        if each["sequence_number"] > after
    ]


# --- what is asked


async def _sent(client: Client, fields: JobFields) -> tuple[ResumeToken, str | None]:
    """Send a job; return where its answer begins, and the hash of its record."""
    stream = await client.stream(**fields).start()
    sent = stream.sent
    return stream.detach(), sent


async def _cancel(client: Client, job: str) -> None:
    with contextlib.suppress(ArilError, TimeoutError):
        async with asyncio.timeout(CANCEL_SECONDS):
            await client.cancel(job)


def _events_of(place: ResumeToken, asked: ResponseAsked | None = None) -> ResponseEvents:
    told = None if asked is None else asked.told
    name = id_of(place, PREFIX)
    return ResponseEvents(name, place.job, created=made_at(place.job), told=told)


def _number(text: str | None) -> int:
    if text is None:
        return -1
    if not _NUMBER.fullmatch(text):
        name = "starting_after"
        raise Refusal(400, f"{name}: must be the number of an event", param=name)
    return int(text)


@contextlib.contextmanager
def _lost_is_not_there() -> Iterator[None]:
    """Raise what is no response, or is one no more, as 404."""
    try:
        yield
    except (BadToken, StreamLost) as error:
        raise Refusal(404, str(error), code="stream_lost", param="response_id") from None


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


ROUTES: Final = (
    Route(RESPONSES, create, methods=["POST"]),
    Route(RESPONSES + "/{id}", retrieve, methods=["GET"]),
    Route(RESPONSES + "/{id}", delete, methods=["DELETE"]),
    Route(RESPONSES + "/{id}/cancel", cancel, methods=["POST"]),
)

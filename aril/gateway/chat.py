"""`/v1/chat/completions` and `/v1/completions`: asked, streamed, gone on with, read again.

What is sent of an answer is a function of its replies alone, in their order: so a reader who names
the last event that it has been given goes on exactly behind that, at whichever gateway.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aril.errors import BadToken, JobTimeout
from aril.gateway import ids
from aril.gateway.asking import job_of, trace_of
from aril.gateway.body import asked_of
from aril.gateway.failures import Refusal
from aril.gateway.frames import Frames
from aril.gateway.ids import job_of_choice
from aril.gateway.reading import Reading
from aril.gateway.site import site_of
from aril.gateway.sse import DONE, EventStream, unless_left
from aril.openai.answers import Answer
from aril.openai.common import Asked
from aril.openai.errors import Refused
from aril.openai.jobs import JobFields
from aril.openai.requests import CHAT, TEXT, request_of
from aril.openai.responses import response_of
from aril.schemas import ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.requests import Request

    from aril.client import Client
    from aril.gateway.ids import Place
    from aril.gateway.keys import Caller
    from aril.gateway.reading import Begun
    from aril.gateway.site import Site
    from aril.openai.common import Endpoint
    from aril.stream import Stream

WRITE_BYTES: Final = 65_536
"""Of one write: what has arrived goes out together, up to here."""
MOST_STREAMED: Final = 128
"""Choices: each event says where its reader stands in all of them. OpenAI's bound of `n`."""
LAST: Final = "last-event-id"


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the two endpoints."""

    url: str
    endpoint: Endpoint
    prefix: str


KINDS: Final = (
    Kind(CHAT, "chat.completion", "chatcmpl-"),
    Kind(TEXT, "text_completion", "cmpl-"),
)


async def create(request: Request, *, kind: Kind) -> Response:
    """Ask, and answer whole or as a stream; or go on behind `Last-Event-ID`, asking nothing."""
    site = site_of(request)
    caller = site.caller(request)
    judge = partial(request_of, kind.url, bases={site.settings.gateway_model})
    asked = await asked_of(request, site.settings.gateway_body_bytes, judge)
    client = site.client(caller.tenant)
    if (last := request.headers.get(LAST)) is not None:
        places, closed = _read(last)
        if len(places) != len(asked.jobs):
            text = f"{LAST}: {len(places)} choices, and the body asks for {len(asked.jobs)}"
            raise Refusal(400, text, param=LAST)
        reading = _resumed(site, client, caller, places)
        return await _answered(request, kind, asked, reading, places, closed=closed)
    base, kept = job_of(request, caller.tenant, len(asked.jobs))
    request.scope["aril.job"] = base
    reading = Reading(
        site, _streams(request, client, asked, base), caller=caller, begun="new", kept=kept
    )
    return await _answered(request, kind, asked, reading)


async def read(request: Request, *, kind: Kind) -> Response:
    """Answer with what an id stands for, whole or, with `?stream=true`, as a stream."""
    site = site_of(request)
    caller = site.caller(request)
    places, told = _places(request, kind, caller.tenant), request.query_params
    asked = Asked(
        endpoint=kind.endpoint,
        model=site.settings.gateway_model,
        jobs=tuple(JobFields() for _ in places),
        n=len(places) if kind.url == CHAT else 1,
        stream=told.get("stream") == "true",
        include_usage=told.get("include_usage") == "true",
        top_logprobs=0 if told.get("logprobs") == "true" else None,
    )
    after, closed = None, False
    if asked.stream and (last := request.headers.get(LAST)) is not None:
        after, closed = _read(last)
        if [each.start for each in after] != [each.start for each in places]:
            raise Refusal(400, f"{LAST}: of another answer", param=LAST)
    reading = _resumed(site, site.client(caller.tenant), caller, places, begun="read")
    return await _answered(request, kind, asked, reading, after, closed=closed)


async def cancel(request: Request, *, kind: Kind) -> Response:
    """Ask for the jobs of an answer to be ended; what came of it stays and can be read."""
    site = site_of(request)
    tenant = site.caller(request).tenant
    client, places = site.client(tenant), _places(request, kind, tenant)
    await asyncio.gather(*(client.cancel(place.start.job) for place in places))
    told = {
        "id": request.path_params["id"],
        "object": kind.endpoint,
        "status": "cancelling",
    }
    return JSONResponse(told, 202)


# --- how it is answered


async def _answered(
    request: Request,
    kind: Kind,
    asked: Asked,
    reading: Reading,
    after: list[Place] | None = None,
    *,
    closed: bool = False,
) -> Response:
    site, headers = site_of(request), {"x-request-id": reading.job}
    if asked.stream:
        if (choices := len(reading.streams)) > MOST_STREAMED:
            text = f"stream: at most {MOST_STREAMED} answers of a request are streamed"
            code = ErrorCode.LIMIT_EXCEEDED
            raise Refused(text, param="stream", code=code, limit=MOST_STREAMED, given=choices)
        pieces = _all_given() if closed else _pieces(kind, asked, reading, after)
        return EventStream(pieces, **site.rhythm, headers=headers, hold=True)
    longest = site.settings.gateway_wait_seconds
    body = await unless_left(request.receive, _whole(kind, asked, reading, longest))
    return JSONResponse(body, headers=headers)


async def _pieces(
    kind: Kind, asked: Asked, reading: Reading, after: list[Place] | None
) -> AsyncIterator[bytes]:
    async with reading:
        frames = Frames(asked, reading.streams, prefix=kind.prefix, after=after)
        while not reading.over:
            await reading.wait()
            try:
                for at, event in reading.arrived():
                    frames.add(at, event)
                    if frames.waiting >= WRITE_BYTES:
                        yield _told(reading, frames)
            except Exception:
                if frames.waiting:
                    yield _told(reading, frames)
                raise
            if frames.waiting:
                yield _told(reading, frames)
        frames.close()
    yield frames.take() + DONE


def _told(reading: Reading, frames: Frames) -> bytes:
    """Return what waits: each event of it tells its reader where it stands."""
    reading.resumable = True
    return frames.take()


async def _all_given() -> AsyncIterator[bytes]:
    yield DONE


async def _whole(kind: Kind, asked: Asked, reading: Reading, longest: float) -> object:
    answers = [Answer(stream.job) for stream in reading.streams]
    try:
        async with reading, asyncio.timeout(longest):
            while not reading.over:
                await reading.wait()
                for at, event in reading.arrived():
                    answers[at].add(event)
            tokens = [stream.token for stream in reading.streams]
    except TimeoutError as error:
        if isinstance(error, JobTimeout):
            raise
        raise JobTimeout(reading.job, longest) from None
    if reading.begun == "read":
        asked = _as_it_was(asked, answers)
    elif not _has_rows(answers):  # gone on with in another form than it was asked for
        asked = replace(asked, top_logprobs=None)
    return response_of(
        asked, answers, id=ids.answer_id(kind.prefix, tokens), created=int(time.time())
    )


def _as_it_was(asked: Asked, answers: list[Answer]) -> Asked:
    """Return what an answer was asked with, as far as that is seen from it."""
    end = answers[0].end
    model = end.adapter if end is not None and end.adapter else asked.model
    logprobs = 0 if _has_rows(answers) and any(each.rows for each in answers) else None
    return replace(asked, model=model, top_logprobs=logprobs)


def _has_rows(answers: list[Answer]) -> bool:
    """Whether each token of each answer has its log probability."""
    return all(len(each.rows) == len(each.token_ids) for each in answers)


# --- what is read


def _streams(request: Request, client: Client, asked: Asked, base: str) -> list[Stream]:
    trace = trace_of(request)
    streams = []
    for at, fields in enumerate(asked.jobs):
        # The first has the key itself, however many there are: else another body with more or
        # fewer choices would not be seen to be under a key that is taken.
        job = job_of_choice(base, at)
        options: JobFields = {**fields, **trace, "job_id": job}
        streams.append(client.stream(**options))
    return streams


def _resumed(
    site: Site,
    client: Client,
    caller: Caller,
    places: list[Place],
    *,
    begun: Begun = "resumed",
) -> Reading:
    # From the beginning: what was given is passed over by who makes chunks of it, as only that
    # knows how much of its text was given, and whether a reset takes any of it back.
    streams = [client.resume(place.start) for place in places]
    return Reading(site, streams, caller=caller, begun=begun, kept=True)


def _read(text: str) -> tuple[list[Place], bool]:
    try:
        return ids.read_event_id(text)
    except BadToken as error:
        raise Refusal(400, f"{LAST}: {error}", param=LAST) from None


def _places(request: Request, kind: Kind, tenant: str) -> list[Place]:
    try:
        return ids.places_of(kind.prefix, request.path_params["id"], tenant)
    except BadToken as error:
        raise Refusal(404, str(error), code="stream_lost", param="id") from None


ROUTES: Final = tuple(
    route
    for kind in KINDS
    for route in (
        Route(kind.url, partial(create, kind=kind), methods=["POST"]),
        Route(kind.url + "/{id}", partial(read, kind=kind), methods=["GET"]),
        Route(kind.url + "/{id}/cancel", partial(cancel, kind=kind), methods=["POST"]),
    )
)

"""`/v1/streams/{id}`: an answer as a stream of the Durable Streams protocol (1.0), to be read.

The stream is the job's events in the order of the log, a JSON message each, and only grows: what an
answer takes back is a message, `reset`, too. An offset is a `Position`. It ends with the job.
docs/streams.md says what of the protocol there is.
"""

from __future__ import annotations

import json
import random
import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from aril.errors import ArilError, BadToken, StreamLost
from aril.gateway.failures import Refusal
from aril.gateway.messages import message
from aril.gateway.places import id_of, place_of
from aril.gateway.site import site_of
from aril.gateway.sse import EventStream, unless_left
from aril.gateway.tailing import Tailing
from aril.position import START, Position
from aril.schemas import JobError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from starlette.datastructures import QueryParams
    from starlette.requests import Request

    from aril.stream import ResumeToken
    from aril.tail import Step, Tail

MOST_BYTES: Final = 1 << 20
"""Of one response that is not live; the message that goes past it is the last."""
LIVE_SECONDS: Final = 3_600.0
"""Silence after which a live response says again where it is; the caller is kept awake before."""
# October 9th, 2024, and 20 seconds: the protocol's.
CURSOR_EPOCH: Final = 1_728_432_000
CURSOR_SECONDS: Final = 20
MOST_CURSOR_JITTER: Final = 3_600 // CURSOR_SECONDS
_CURSOR: Final = re.compile(r"\d{1,15}", re.ASCII)

SAFE: Final = {
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
# The protocol's tests compare the type whole, want `no-cache` by that name, and look for `data:`
# without a blank behind it.
LIVE: Final = SAFE | {
    "content-type": "text/event-stream",
    "cache-control": "no-cache, no-store",
}
BAD: Final = 400
NOT_KEPT: Final = "no-store"
CHECKED: Final = "private, no-cache"
"""What more may come behind: a cache asks whether it has."""
KEPT: Final = "private, max-age=60, stale-while-revalidate=300"
"""Messages never change, nor does an end."""


class Asked(NamedTuple):
    """What a request asks for."""

    position: Position = START
    only_new: bool = False
    live: str = ""
    cursor: int | None = None


async def stream(request: Request) -> Response:
    """GET and HEAD."""
    site = site_of(request)
    caller = site.caller(request)
    try:
        place = place_of(request.path_params["id"], caller.tenant)
    except BadToken as error:
        raise _refused(404, str(error)) from None
    asked = _asked(request.query_params)
    reading = Tailing(site, caller, place, asked.position)
    if asked.live == "sse" and request.method != "HEAD":
        return EventStream(_live(reading, asked), **site.rhythm, headers=LIVE, hold=True)
    headers = SAFE | {"vary": "authorization"}
    answered = (
        _head(reading, headers)
        if request.method == "HEAD"
        else _chunk(request, reading, place, asked, headers)
    )
    with _told_by_status(asked):
        return await unless_left(request.receive, answered)


async def _head(reading: Tailing, headers: dict[str, str]) -> Response:
    async with reading:
        await _pass_by(reading)
    told = _place_headers(reading.tail.position, ended=reading.tail.ended)
    kind = {"content-type": "application/json", "cache-control": NOT_KEPT}
    return Response(headers=headers | told | kind)


async def _chunk(
    request: Request, reading: Tailing, place: ResumeToken, asked: Asked, headers: dict[str, str]
) -> Response:
    """Answer with what is there or, to a long poll, with what comes first."""
    tail, seconds = reading.tail, site_of(request).settings.gateway_keepalive_seconds
    async with reading:
        if asked.only_new:
            await _pass_by(reading)
        body = _Body(tail.position)
        await body.fill(reading)
        if asked.live and body.empty and not tail.ended:
            body.add(await reading.more(seconds))
    at_end = tail.ended and body.whole
    headers = headers | _place_headers(body.position, ended=at_end)
    if body.whole:
        headers["stream-up-to-date"] = "true"
    if asked.live and not at_end:
        headers["stream-cursor"] = str(_cursor(asked.cursor))
    if asked.live and body.empty:
        return Response(status_code=204, headers=headers | {"cache-control": NOT_KEPT})
    if asked.only_new:
        headers["cache-control"] = NOT_KEPT
    else:
        headers["cache-control"] = CHECKED if body.empty and not at_end else KEPT
        headers["etag"] = _etag(place, asked.position, body.position, at_end)
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
    return Response(body.json(), headers=headers | {"content-type": "application/json"})


async def _live(reading: Tailing, asked: Asked) -> AsyncIterator[bytes]:
    """Yield what is there and what comes; each time all that waits, and where that leads."""
    tail, cursor, begun = reading.tail, asked.cursor, False
    try:
        with _told_by_status(asked):
            async with reading:
                if asked.only_new:
                    await _pass_by(reading)
                while not (begun and tail.ended):
                    # Where there is nothing yet, that is told at once.
                    steps = await reading.more(LIVE_SECONDS if begun and tail.caught_up else 0.0)
                    cursor, begun = _cursor(cursor), True
                    told = _control(tail, cursor)
                    if steps:
                        data = b",".join(message(event) for step in steps for event in step.events)
                        told = b"event: data\ndata:[" + data + b"]\n\n" + told
                    yield told
    except (ArilError, JobError, HTTPException):
        if not begun:
            raise
        # The caller comes again, from where it stands, and is told with a status.


@contextmanager
def _told_by_status(asked: Asked) -> Iterator[None]:
    """Raise what a stream has not as the protocol says it."""
    try:
        yield
    except BadToken as error:
        raise _refused(404 if asked.position.at_start else 400, str(error)) from None
    except StreamLost as error:
        raise _refused(410, str(error)) from None


class _Body:
    """The messages of one response, and where they lead."""

    def __init__(self, position: Position) -> None:
        self.position = position
        self.whole = True
        self._messages: list[bytes] = []
        self._bytes = 0

    @property
    def empty(self) -> bool:
        return not self._messages

    async def fill(self, reading: Tailing) -> None:
        """Take all that is there, or as much as there is room for."""
        while self.whole and (steps := await reading.more()):
            self.add(steps)

    def add(self, steps: Sequence[Step]) -> None:
        """Take steps while there is room."""
        for events, position in steps:
            if self._bytes >= MOST_BYTES:
                self.whole = False
                return
            made = [message(event) for event in events]
            self._messages += made
            self._bytes += sum(map(len, made))
            self.position = position

    def json(self) -> bytes:
        return b"[" + b",".join(self._messages) + b"]"


async def _pass_by(reading: Tailing) -> None:
    while await reading.more():
        pass


def _asked(params: QueryParams) -> Asked:
    live = params.get("live", "")
    if live not in {"", "sse", "long-poll"}:
        raise _refused(400, "live: must be sse or long-poll")
    given = params.getlist("offset")
    if len(given) > 1 or (live and not given):
        raise _refused(400, "offset: must be there once")
    cursor = params.get("cursor", "")
    found = int(cursor) if _CURSOR.fullmatch(cursor) else None
    if not given or given[0] == "-1":
        return Asked(live=live, cursor=found)
    if given[0] == "now":
        return Asked(only_new=True, live=live, cursor=found)
    try:
        return Asked(Position.parse(given[0]), live=live, cursor=found)
    except BadToken as error:
        raise _refused(400, f"offset: {error}") from None


def _place_headers(position: Position, *, ended: bool) -> dict[str, str]:
    closed = {"stream-closed": "true"} if ended else {}
    return {"stream-next-offset": str(position)} | closed


def _control(tail: Tail, cursor: int) -> bytes:
    told: dict[str, Any] = {"streamNextOffset": str(tail.position)}
    if tail.ended:
        told |= {"streamClosed": True, "upToDate": True}
    else:
        told["streamCursor"] = str(cursor)
        if tail.caught_up:
            told["upToDate"] = True
    return f"event: control\ndata:{json.dumps(told, separators=(',', ':'))}\n\n".encode()


def _cursor(given: int | None) -> int:
    """Return a cursor: the time in steps of 20 seconds, and always one beyond the caller's."""
    now = int(time.time() - CURSOR_EPOCH) // CURSOR_SECONDS
    if given is None or given < now:
        return now
    return given + random.randint(1, MOST_CURSOR_JITTER)


def _etag(place: ResumeToken, start: Position, end: Position, closed: bool) -> str:
    return f'"{id_of(place)}:{start}:{end}{":c" if closed else ""}"'


def _refused(status: int, text: str) -> Refusal:
    code = "invalid_request" if status == BAD else "stream_lost"
    return Refusal(status, text, code=code, headers=SAFE | {"cache-control": NOT_KEPT})


ROUTES: Final = (Route("/v1/streams/{id}", stream, methods=["GET", "HEAD"]),)

"""`/v1/batches`: a file of requests, answered in its own time, in OpenAI's form.

What is here only writes down what is wanted; `stored.keeper` does it, at whichever gateway.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aril.gateway.asking import job_of
from aril.gateway.body import asked_of
from aril.gateway.failures import Refusal
from aril.gateway.files import SECONDS
from aril.gateway.kept import not_there, on_folder, page_of, store_of, taking
from aril.gateway.site import site_of
from aril.gateway.stored.ids import BATCH, new_id
from aril.gateway.stored.records import UNDER_WAY, Batch
from aril.openai.errors import KEY
from aril.openai.models import BACKBONE
from aril.schemas import ErrorCode, JobError

if TYPE_CHECKING:
    from starlette.requests import Request

    from aril.gateway.settings import GatewaySettings
    from aril.gateway.stored.batches import Batches
    from aril.gateway.stored.files import Files

DEFAULT_LISTED: Final = 20
MOST_LISTED: Final = 100
RETRY_MS: Final = 60_000
"""When a tenant with too many batches may ask again: none ends at once."""
UNITS: Final = {"h": 3_600, "d": 86_400}
LONGEST_SECONDS: Final = 30 * UNITS["d"]
_WINDOW: Final = re.compile(r"([1-9]\d{0,2})([hd])", re.ASCII)

Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Value = Annotated[str, StringConstraints(max_length=512)]


class _Expiry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=SECONDS[0], le=SECONDS[1])]


class _Wanted(BaseModel):
    """A body of POST."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/v1/completions"]
    completion_window: str
    metadata: Annotated[dict[Key, Value], Field(max_length=16)] | None = None
    output_expires_after: _Expiry | None = None


async def create(request: Request) -> Response:
    """POST: make a batch of a file."""
    site = site_of(request)
    caller = site.caller(request)
    store = store_of(site)
    taking(site)
    wanted = await asked_of(request, site.settings.gateway_body_bytes, _wanted)
    batch = _made(wanted, site.settings)
    files, batches = store.files(caller.tenant), store.batches(caller.tenant)
    key = None if KEY not in request.headers else job_of(request, caller.tenant)[0]
    most = site.settings.gateway_open_batches
    told = await asyncio.to_thread(_create, batch, files, batches, most, key)
    if site.keeper is not None:
        site.keeper.look()
    return JSONResponse(told)


async def listed(request: Request) -> Response:
    """GET: the tenant's batches, the newest first."""
    batches = _batches(request)
    page = page_of(request.query_params, default=DEFAULT_LISTED, most=MOST_LISTED)
    told = await asyncio.to_thread(page.of, batches.newest_first, lambda name: _told(batches, name))
    return JSONResponse(told)


async def one(request: Request) -> Response:
    """GET …/{id}: how it stands."""
    told = await asyncio.to_thread(_told, _batches(request), request.path_params["id"])
    if told is None:
        raise not_there("batch")
    return JSONResponse(told)


async def cancel(request: Request) -> Response:
    """POST …/{id}/cancel: ask no more of it, and end what runs."""
    batches, name = _batches(request), request.path_params["id"]
    told = await asyncio.to_thread(_cancel, batches, name)
    if told is None:
        raise not_there("batch")
    keeper = site_of(request).keeper
    if keeper is not None:
        keeper.look()
    return JSONResponse(told)


def _wanted(body: object) -> _Wanted:
    try:
        return _Wanted.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"][:3])) or "body"
        raise _bad(f"{where:.200}: {first['msg']}", where[:200]) from None


def _made(wanted: _Wanted, settings: GatewaySettings) -> Batch:
    now = int(time.time())
    kept = wanted.output_expires_after
    return Batch(
        id=new_id(BATCH),
        endpoint=wanted.endpoint,
        input_file_id=wanted.input_file_id,
        completion_window=wanted.completion_window,
        created_at=now,
        expires_at=now + _seconds(wanted.completion_window),
        metadata=wanted.metadata,
        output_seconds=None if kept is None else kept.seconds,
        bases=tuple(sorted({BACKBONE, settings.gateway_model})),
    )


def _seconds(window: str) -> int:
    found = _WINDOW.fullmatch(window)
    seconds = 0 if found is None else int(found[1]) * UNITS[found[2]]
    if not 0 < seconds <= LONGEST_SECONDS:
        text = "completion_window: must be hours or days, such as 24h, up to 30d"
        raise _bad(text, "completion_window")
    return seconds


def _create(
    batch: Batch, files: Files, batches: Batches, most: int, key: str | None
) -> dict[str, Any]:
    """Let a batch be there and tell it; under a known key, the one that there is."""
    if key is not None:
        batch = batch.model_copy(update={"id": batches.claim(key, batch.id)})
        if (made := batches.get(batch.id)) is not None:
            if not made.asks_as(batch):
                raise _in_use()
            return made.told(cancel_at=batches.cancel_at(made.id))
    about = files.get(batch.input_file_id)
    if about is None:
        raise not_there("input_file")
    if about.purpose != "batch":
        raise _bad("input_file_id: its purpose must be batch", "input_file_id")
    under_way = sum(
        not found.is_over
        for name in batches.newest_first()
        if (found := batches.get(name)) is not None
    )
    if under_way >= most:
        text = f"{under_way} batches of yours are not over, {most} may be"
        raise JobError(
            ErrorCode.OVERLOADED, text, limit=most, given=under_way, retry_after_ms=RETRY_MS
        )
    try:
        batches.create(batch, files.content(about.id))
    except FileNotFoundError:
        raise not_there("input_file") from None
    except FileExistsError:
        raise _in_use() from None
    return batch.told()


def _told(batches: Batches, name: str) -> dict[str, Any] | None:
    batch = batches.get(name)
    return None if batch is None else batch.told(cancel_at=batches.cancel_at(name))


def _cancel(batches: Batches, name: str) -> dict[str, Any] | None:
    batch = batches.get(name)
    if batch is None:
        return None
    if batch.status in UNDER_WAY:
        batches.cancel(name)
    elif batch.ending != "cancelled":
        raise Refusal(409, f"a batch that is {batch.status} cannot be cancelled", code="not_open")
    return _told(batches, name)


def _batches(request: Request) -> Batches:
    site = site_of(request)
    caller = site.caller(request)
    return store_of(site).batches(caller.tenant)


def _in_use() -> Refusal:
    return Refusal(422, f"{KEY}: was another request's", code="idempotency_key_reused", param=KEY)


def _bad(message: str, param: str) -> Refusal:
    return Refusal(400, message, code=ErrorCode.INVALID_JOB.value, param=param)


BATCHES: Final = "/v1/batches"
ROUTES: Final = (
    Route(BATCHES, on_folder(create), methods=["POST"]),
    Route(BATCHES, on_folder(listed), methods=["GET"]),
    Route(BATCHES + "/{id}", on_folder(one), methods=["GET"]),
    Route(BATCHES + "/{id}/cancel", on_folder(cancel), methods=["POST"]),
)

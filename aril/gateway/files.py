"""`/v1/files`: what batches are made of, and what they bring, in OpenAI's form."""

from __future__ import annotations

import asyncio
import re
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from aril.gateway.body import CLOSE
from aril.gateway.failures import Refusal
from aril.gateway.hosts import is_foreign, listed_in
from aril.gateway.kept import not_there, number_of, on_folder, page_of, store_of, taking
from aril.gateway.site import site_of
from aril.gateway.upload import receive
from aril.schemas import ErrorCode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import Request

    from aril.gateway.settings import GatewaySettings
    from aril.gateway.site import Site
    from aril.gateway.stored.disk import Part
    from aril.gateway.stored.files import Files, StoredFile

PIECE_BYTES: Final = 1 << 18
CHECK_BYTES: Final = 1 << 24
"""Of an upload, between two looks at what its tenant has: a look costs some milliseconds."""
MOST_LISTED: Final = 10_000
MOST_NAME_CHARS: Final = 255
SECONDS: Final = (3_600, 2_592_000)
"""How long a caller may say that a file is to be kept: OpenAI's bounds."""
FIELDS: Final = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


async def create(request: Request) -> Response:
    """POST: keep what is uploaded."""
    site = site_of(request)
    caller = site.caller(request)
    files = store_of(site).files(caller.tenant)
    taking(site)
    _refuse_pages(request, site)
    await asyncio.to_thread(_refuse_beyond, files, site.settings, more=1)
    about = await _keep(request, files, site.settings)
    return JSONResponse(about.told())


async def listed(request: Request) -> Response:
    """GET: the tenant's files."""
    files = _files(request)
    page = page_of(request.query_params, default=MOST_LISTED, most=MOST_LISTED)
    purpose = request.query_params.get("purpose")

    def read(name: str) -> dict[str, Any] | None:
        about = files.get(name)
        return about.told() if about is not None and purpose in {None, about.purpose} else None

    return JSONResponse(await asyncio.to_thread(page.of, files.newest_first, read))


async def one(request: Request) -> Response:
    """GET …/{id}: what is known of a file."""
    about = await _there(request, _files(request))
    return JSONResponse(about.told())


async def content(request: Request) -> Response:
    """GET …/{id}/content: the file itself."""
    files = _files(request)
    about = await _there(request, files)
    try:
        file = await asyncio.to_thread(files.open, about.id)
    except FileNotFoundError:
        raise not_there("file") from None
    headers = {
        "content-length": str(about.bytes),
        "content-disposition": f'attachment; filename="{about.id}.jsonl"',
        "x-content-type-options": "nosniff",
    }
    return StreamingResponse(_pieces(file), media_type="application/jsonl", headers=headers)


async def delete(request: Request) -> Response:
    """DELETE …/{id}: remove a file; a batch that was made of it goes on."""
    files, name = _files(request), request.path_params["id"]
    if not await asyncio.to_thread(files.delete, name):
        raise not_there("file")
    return JSONResponse({"id": name, "object": "file", "deleted": True})


async def _keep(request: Request, files: Files, settings: GatewaySettings) -> StoredFile:
    name, part = await asyncio.to_thread(files.begin)
    with part:
        within = _Within(part, partial(_refuse_beyond, files, settings))
        form = await receive(request, within, settings.gateway_file_bytes)
        for field in sorted(form.fields.keys() - FIELDS):
            raise _bad(f"{field:.80}: is not served", field[:80])
        if form.filename is None or not part.bytes:
            raise _bad("file: is missing or empty", "file")
        if form.fields.get("purpose") != "batch":
            raise _bad("purpose: must be batch", "purpose")
        if form.fields.get("expires_after[anchor]", "created_at") != "created_at":
            raise _bad("expires_after.anchor: must be created_at", "expires_after")
        said = form.fields.get("expires_after[seconds]")
        seconds = number_of(said, "expires_after.seconds", SECONDS, files.longest)
        filename = _CONTROL.sub("", form.filename)[-MOST_NAME_CHARS:] or "input.jsonl"
        return await asyncio.to_thread(
            partial(files.keep, check=within.check),
            name,
            part,
            filename=filename,
            purpose="batch",
            seconds=seconds,
        )


async def _pieces(file: BinaryIO) -> AsyncIterator[bytes]:
    with file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


async def _there(request: Request, files: Files) -> StoredFile:
    about = await asyncio.to_thread(files.get, request.path_params["id"])
    if about is None:
        raise not_there("file")
    return about


def _files(request: Request) -> Files:
    site = site_of(request)
    caller = site.caller(request)
    return store_of(site).files(caller.tenant)


def _refuse_pages(request: Request, site: Site) -> None:
    """Refuse what a page from elsewhere sends where no key is asked for.

    A form is the one body with which a browser lets a page write without asking first.
    """
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if site.keys is None and is_foreign(origin, host, listed_in(site.settings.gateway_cors)):
        text = "pages from elsewhere may not upload: ARIL_GATEWAY_CORS lists those that may"
        raise Refusal(403, text, param="origin", headers=CLOSE)


class _Within:
    """A part that looks, while it grows, whether all that a tenant has still fits.

    Each of those that are uploaded side by side counts the others, as far as they have come.
    """

    def __init__(self, part: Part, check: Callable[[], None]) -> None:
        self._part = part
        self._next = CHECK_BYTES
        self.check = check

    def write(self, data: bytes) -> None:
        """Append. Raises OSError, `Refusal`."""
        self._part.write(data)
        if self._part.bytes >= self._next:
            self._next += CHECK_BYTES
            self.check()


def _refuse_beyond(files: Files, settings: GatewaySettings, *, more: int = 0) -> None:
    """Refuse what is more than a tenant may have, with so many files and bytes more."""
    used = files.used()
    for what, given, most in (
        ("files", used.files, settings.gateway_files),
        ("bytes in files", used.bytes, settings.gateway_stored_bytes),
    ):
        if given + more > most:
            text = f"{given} {what} are kept for you, {most} may be: delete some"
            code = ErrorCode.LIMIT_EXCEEDED.value
            raise Refusal(
                400, text, code=code, param="file", limit=most, given=given, headers=CLOSE
            )


def _bad(message: str, param: str) -> Refusal:
    return Refusal(400, message, code=ErrorCode.INVALID_JOB.value, param=param)


FILES: Final = "/v1/files"
ROUTES: Final = (
    Route(FILES, on_folder(create), methods=["POST"]),
    Route(FILES, on_folder(listed), methods=["GET"]),
    Route(FILES + "/{id}", on_folder(one), methods=["GET"]),
    Route(FILES + "/{id}", on_folder(delete), methods=["DELETE"]),
    Route(FILES + "/{id}/content", on_folder(content), methods=["GET"]),
)

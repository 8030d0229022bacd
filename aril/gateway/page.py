"""A page to chat on, at `/`: a reader of our own streams that survives its own reload.

Its files stand in `page/` and are served as they are. They ask this gateway and nobody else, which
the policy that they are served under makes sure of: no script but theirs runs, and no text of a
model can become markup.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aril.gateway.site import site_of

if TYPE_CHECKING:
    from starlette.requests import Request

FOLDER: Final = Path(__file__).with_suffix("")
INDEX: Final = "index.html"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = {
    "cache-control": "no-cache",  # asked again each time, by its ETag
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class File(NamedTuple):
    """One file of the page, with the headers that it is sent with."""

    body: bytes
    headers: dict[str, str]


def read_files() -> dict[str, File]:
    """Return the page's files by their names."""
    files = {}
    for path in sorted(FOLDER.iterdir()):
        body = path.read_bytes()
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        files[path.name] = File(body, HEADERS | {"content-type": TYPES[path.suffix], "etag": tag})
    return files


FILES: Final = read_files()


async def index(request: Request) -> Response:
    """`/`: the page itself."""
    return _send(request, FILES[INDEX])


async def part(request: Request) -> Response:
    """`/page/<name>`: what it is made of. Raises HTTPException 404."""
    file = FILES.get(request.path_params["name"])
    if file is None:
        raise HTTPException(404, "no such file")
    return _send(request, file)


async def caller(request: Request) -> Response:
    """`/page/caller`: whose key this is, and if one is needed. Raises HTTPException 401."""
    site = site_of(request)
    who = site.caller(request)
    about = {"tenant": who.tenant, "name": who.name, "keyless": site.keys is None}
    return JSONResponse(about, headers={"cache-control": "no-store"})


def _send(request: Request, file: File) -> Response:
    known = {tag.strip() for tag in request.headers.get("if-none-match", "").split(",")}
    if file.headers["etag"] in known:
        return Response(status_code=304, headers=file.headers)
    return Response(file.body, headers=file.headers)


ROUTES: Final = (
    Route("/", index),
    Route("/page/caller", caller),
    Route("/page/{name}", part),
)

"""Is the gateway there, and does it take requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse
from starlette.routing import Route

from aril.gateway.site import site_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response


async def health(request: Request) -> Response:
    """`/health` and `/readyz`: 503 while it drains."""
    draining = site_of(request).draining.is_set()
    return JSONResponse({"status": "draining" if draining else "ok"}, 503 if draining else 200)


async def alive(_: Request) -> Response:
    """`/livez`: the event loop turns."""
    return JSONResponse({"status": "ok"})


ROUTES: Final = (Route("/health", health), Route("/readyz", health), Route("/livez", alive))

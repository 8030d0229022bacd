"""Is the gateway there, does it take requests, and what it has done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from aril.gateway.site import site_of

if TYPE_CHECKING:
    from starlette.requests import Request


async def health(request: Request) -> Response:
    """`/health` and `/readyz`: 503 before the brokers have answered, and while it drains."""
    site = site_of(request)
    if site.ready:
        return JSONResponse({"status": "ok"})
    status = "draining" if site.draining.is_set() else "starting"
    return JSONResponse({"status": status}, 503)


async def alive(_: Request) -> Response:
    """`/livez`: the event loop turns."""
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> Response:
    """`/metrics`, in Prometheus' format or OpenMetrics."""
    page, kind = site_of(request).metrics.page(request.headers.get("accept", ""))
    return Response(page, headers={"content-type": kind})


ROUTES: Final = (
    Route("/health", health),
    Route("/readyz", health),
    Route("/livez", alive),
    Route("/metrics", metrics),
)

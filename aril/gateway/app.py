"""The ASGI application: every room's routes, around one `Site`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from aril.gateway import chat, health, models, page, responses, streams
from aril.gateway.failures import HANDLERS
from aril.gateway.hosts import KnownHosts
from aril.gateway.watching import Watching

if TYPE_CHECKING:
    from aril.gateway.site import Site


def make_app(site: Site) -> Starlette:
    """Return the application of a gateway whose connection somebody else opens and closes."""
    origins, hosts = _listed(site.settings.gateway_cors), _listed(site.settings.gateway_hosts)
    middleware = [Middleware(Watching, site=site)]
    if site.keys is None:
        middleware.append(Middleware(KnownHosts, names=hosts))
    if origins:
        middleware.append(
            Middleware(
                CORSMiddleware,
                allow_origins=origins,
                allow_methods=["GET", "POST", "HEAD", "DELETE"],
                allow_headers=["*"],
                expose_headers=["*"],
            )
        )
    app = Starlette(
        routes=[
            *health.ROUTES,
            *page.ROUTES,
            *models.ROUTES,
            *chat.ROUTES,
            *responses.ROUTES,
            *streams.ROUTES,
        ],
        middleware=middleware,
        exception_handlers=HANDLERS,
    )
    app.state.site = site
    return app


def _listed(names: str) -> list[str]:
    """Return hosts, or origins, as they are compared: browsers say them in lower case."""
    return [each.strip().lower().rstrip("/") for each in names.split(",") if each.strip()]

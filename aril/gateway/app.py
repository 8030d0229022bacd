"""The ASGI application: every room's routes, around one `Site`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from aril.gateway import batches, chat, files, health, models, page, responses, streams
from aril.gateway.failures import HANDLERS
from aril.gateway.hosts import KnownHosts, listed_in
from aril.gateway.watching import Watching

if TYPE_CHECKING:
    from aril.gateway.site import Site


def make_app(site: Site) -> Starlette:
    """Return the application of a gateway whose connection somebody else opens and closes."""
    origins, hosts = listed_in(site.settings.gateway_cors), listed_in(site.settings.gateway_hosts)
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
            *files.ROUTES,
            *batches.ROUTES,
        ],
        middleware=middleware,
        exception_handlers=HANDLERS,
    )
    app.state.site = site
    return app

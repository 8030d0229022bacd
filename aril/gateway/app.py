"""The ASGI application: every room's routes, around one `Site`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware

from aril.gateway import batches, chat, files, health, models, page, responses, streams
from aril.gateway.failures import HANDLERS, respond
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
    # Starlette has a place of its own for what nobody expected: around all of these, so that a
    # page could not read it.
    middleware.append(Middleware(ExceptionMiddleware, handlers={Exception: respond}))
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
    # What it would redirect to begins with http, whatever stands before the gateway.
    app.router.redirect_slashes = False
    app.state.site = site
    return app

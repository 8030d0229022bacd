"""Each request counted, its caller's limits told, and a line in the log where that is asked for.

Never its body or its key.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from starlette.datastructures import MutableHeaders

from aril.gateway.failures import LEFT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from aril.gateway.site import Site

log = logging.getLogger("aril.gateway.access")

NOWHERE: Final = "none"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Watching:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, begun = LEFT, time.monotonic()

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(scope.get("aril.headers", {}))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            status = 500 if status == LEFT else status
            raise
        finally:
            route = getattr(scope.get("route"), "path", NOWHERE)
            method = scope["method"] if scope["method"] in METHODS else NOWHERE
            self._site.metrics.requests.labels(route, method, str(status)).inc()
            if self._site.settings.gateway_access_log:
                log.info(
                    "request",
                    extra={
                        "method": method,
                        "route": route,
                        "status": status,
                        "seconds": round(time.monotonic() - begun, 3),
                        "key": scope.get("aril.caller"),
                        "job": scope.get("aril.job"),
                    },
                )

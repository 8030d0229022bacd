"""Which names a gateway without keys answers to.

Whoever reaches it is its tenant, so a page from elsewhere must not: a foreign name that is made to
lead here (DNS rebinding) passes a browser's rules, for which it is the page's own. Addresses, and
names without a dot, cannot be somebody else's.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.requests import Request

from aril.gateway.failures import Refusal, respond

if TYPE_CHECKING:
    from collections.abc import Collection

    from starlette.types import ASGIApp, Receive, Scope, Send


class KnownHosts:
    """Refuses other names, in front of an application."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = frozenset(each.removesuffix(".") for each in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 421."""
        host = Headers(scope=scope).get("host") if scope["type"] == "http" else None
        if host is None or is_ours(host, self._names):  # every browser says one
            await self._app(scope, receive, send)
            return
        told = Refusal(421, "no such host here: ARIL_GATEWAY_HOSTS lists other names")
        await (await respond(Request(scope), told))(scope, receive, send)


def is_ours(host: str, names: Collection[str] = ()) -> bool:
    """Whether a Host header is one to answer to; `names` are taken beside the harmless ones."""
    name = host.lower().rpartition(":")[0] if _has_port(host) else host.lower()
    name = name.strip("[]").removesuffix(".")
    if name in names or (name and "." not in name and ":" not in name):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def listed_in(names: str) -> list[str]:
    """Return what a setting lists, by commas."""
    return [each.strip().lower().rstrip("/") for each in names.split(",") if each.strip()]


def is_foreign(origin: str | None, host: str | None, known: Collection[str] = ()) -> bool:
    """Whether a request is a page's from elsewhere; `known` are origins that may ask, or `*`.

    Browsers say `origin` of what a page sends; programs do not.
    """
    if origin is None or origin in known or "*" in known:
        return False
    return origin.lower() not in {f"{scheme}://{host}".lower() for scheme in ("http", "https")}


def _has_port(host: str) -> bool:
    before, colon, port = host.rpartition(":")
    return bool(colon) and port.isdigit() and (":" not in before or before.endswith("]"))

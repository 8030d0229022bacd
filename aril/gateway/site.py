"""What the handlers of requests share: settings, the connection, who asks, how many are open."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from aril.gateway.keys import Caller, Keys
from aril.signer import Signer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.requests import Request

    from aril.client import Client
    from aril.connection import Connection
    from aril.gateway.settings import GatewaySettings


class Site:
    """One gateway. Handlers find it at `request.app.state.site` by `site_of`."""

    def __init__(self, settings: GatewaySettings, connection: Connection) -> None:
        """Prepare. Raises `KeysError`."""
        self.settings = settings
        self.connection = connection
        self.keys = Keys(settings.gateway_keys) if settings.gateway_keys else None
        self.open = 0
        self.draining = asyncio.Event()
        self._clients: dict[str, Client] = {}

    def caller(self, request: Request) -> Caller:
        """Return who asks. Raises HTTPException 401."""
        if self.keys is None:
            tenant = self.settings.gateway_tenant or ""
            return Caller(name=tenant, tenant=tenant)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        caller = self.keys.find(key.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise HTTPException(401, "no such API key", {"www-authenticate": "Bearer"})
        return caller

    def client(self, tenant: str) -> Client:
        """Return a tenant's client; it costs nothing while it asks nothing."""
        client = self._clients.get(tenant)
        if client is None:
            client = self.connection.client(tenant, signer=self._signer(tenant))
            self._clients[tenant] = client
        return client

    @contextmanager
    def reading(self, answers: int = 1) -> Iterator[None]:
        """Count answers that are being read. Raises HTTPException 503 where there are too many."""
        if self.draining.is_set() or self.open + answers > self.settings.gateway_streams:
            raise HTTPException(503, "too many answers are being read here", {"retry-after": "1"})
        self.open += answers
        try:
            yield
        finally:
            self.open -= answers

    def _signer(self, tenant: str) -> Signer | None:
        folder: Path | None = self.settings.gateway_signers
        return None if folder is None else Signer.from_file(folder / f"{tenant}.pem")


def site_of(request: Request) -> Site:
    """Return the gateway that serves a request."""
    site: Site = request.app.state.site
    return site

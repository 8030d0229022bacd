"""What the handlers of requests share: settings, the connection, who asks, how many are open."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

from starlette.exceptions import HTTPException

from aril.errors import BadKey, ClientClosed, JobTimeout
from aril.gateway.keys import Caller, Keys
from aril.gateway.limits import Limits, fit
from aril.gateway.metrics import Metrics
from aril.gateway.stored.keeper import Keeper
from aril.gateway.stored.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.requests import Request

    from aril.client import Client
    from aril.connection import Connection
    from aril.gateway.settings import GatewaySettings
    from aril.gateway.sse import Rhythm
    from aril.signer import Signer

log = logging.getLogger(__name__)

WATCH_SECONDS: Final = 1.0
STOPPING: Final = "this gateway is being stopped; another goes on behind the last event's id"
AGAIN: Final = {"retry-after": "1", "x-should-retry": "true"}


class Reader(Protocol):
    """Somebody who reads answers, and can be told that nothing more will come."""

    job: str
    waiting_since: float | None
    """By the loop's clock; None while something is there to be taken."""

    def fail(self, error: Exception, *, keep: bool = False) -> None:
        """End it with `error`, behind what has arrived; with `keep` for who can go on elsewhere."""


class Site:
    """One gateway. Handlers find it at `request.app.state.site` by `site_of`."""

    def __init__(self, settings: GatewaySettings, connection: Connection) -> None:
        """Prepare. Raises `KeysError`, `StoreError`.

        `BadKey` where a tenant's jobs cannot be signed.
        """
        self.settings = settings
        self.connection = connection
        self.keys = Keys(settings.gateway_keys) if settings.gateway_keys else None
        self.limits = Limits()
        self.metrics = Metrics()
        self.open = 0
        self.readers: set[Reader] = set()
        self.connected = asyncio.Event()
        """Set once the brokers have answered."""
        self.draining = asyncio.Event()
        self.idle = asyncio.Event()
        """Set while no answer is being read."""
        self.idle.set()
        self._clients: dict[str, Client] = {}
        for tenant in [settings.gateway_tenant] if self.keys is None else sorted(self.keys.tenants):
            self._signer(tenant or "")
        self.metrics.ready.set_function(lambda: float(self.ready))
        self.store: Store | None = None
        self.keeper: Keeper | None = None
        if settings.gateway_batches is not None:
            self.store = Store(settings.gateway_batches, days=settings.gateway_file_days)
            self.keeper = Keeper(self.store, settings, self.client, self.metrics)

    @property
    def rhythm(self) -> Rhythm:
        """How event streams go here."""
        settings = self.settings
        return {
            "keepalive": settings.gateway_keepalive_seconds,
            "longest": settings.gateway_wait_seconds,
        }

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        return self.connected.is_set() and not self.draining.is_set()

    def caller(self, request: Request) -> Caller:
        """Return who asks, once a request. Raises HTTPException 401, 429 of its limits."""
        caller = self._caller(request)
        request.scope["aril.caller"] = caller.name
        try:
            self.limits.request(caller)
        finally:
            request.scope["aril.headers"] = self.limits.headers(caller)
        return caller

    def client(self, tenant: str) -> Client:
        """Return a tenant's client; it costs nothing while it asks nothing.

        Raises HTTPException 500 for a tenant that is new among the keys and cannot sign.
        """
        client = self._clients.get(tenant)
        if client is None:
            try:
                signer = self._signer(tenant)
            except BadKey as error:
                log.error("tenant_cannot_sign", extra={"error": str(error)})  # noqa: TRY400 - one line is meant for a person
                raise HTTPException(500, "this gateway cannot sign for its tenant") from None
            client = self.connection.client(tenant, signer=signer)
            self._clients[tenant] = client
        return client

    @contextmanager
    def reading(
        self, answers: int = 1, *, caller: Caller | None = None, reader: Reader | None = None
    ) -> Iterator[None]:
        """Count answers that are being read, within what `caller` may read.

        A `reader` is ended when it has waited too long, or the gateway ends. Raises HTTPException
        503 where there are too many answers or no more are taken, 429 or `JobError` of limits.
        """
        if not self.ready:
            why = STOPPING if self.draining.is_set() else "the brokers have not answered yet"
            raise HTTPException(503, why, AGAIN | {"connection": "close"})
        fit(answers, self.settings.gateway_streams, "here are read")
        if self.open + answers > self.settings.gateway_streams:
            raise HTTPException(503, "too many answers are being read here", AGAIN)
        with self.limits.streams(caller or NOBODY, answers):
            self._count(answers)
            if reader is not None:
                self.readers.add(reader)
            try:
                yield
            finally:
                self._count(-answers)
                if reader is not None:
                    self.readers.discard(reader)

    async def watch(self) -> None:
        """End readers to whom nothing has come for too long; tell of keys; never returns."""
        loop, longest = asyncio.get_running_loop(), self.settings.gateway_wait_seconds
        fault = None
        while True:
            await asyncio.sleep(min(WATCH_SECONDS, longest / 4))
            if self.keys is not None and self.keys.fault != fault:
                fault = self.keys.fault
                log.warning("keys_as_they_were", extra={"why": fault or "read again"})
            now = loop.time()
            for reader in [*self.readers]:
                if reader.waiting_since is not None and now - reader.waiting_since > longest:
                    reader.fail(JobTimeout(reader.job, longest))

    async def keep(self) -> None:
        """Work on batches, where there is a folder for them; returns after `drain`."""
        if self.keeper is None:
            await self.draining.wait()
        else:
            await self.keeper.run()

    def drain(self) -> None:
        """Take nothing new; batches are left to other gateways, or to the next start."""
        self.draining.set()
        if self.keeper is not None:
            self.keeper.stop()

    async def close(self) -> None:
        """Wait a while until jobs that are to be cancelled are."""
        await asyncio.gather(*(client.close() for client in self._clients.values()))

    def end(self) -> None:
        """End all readers. The jobs of those who can go on elsewhere run on."""
        for reader in [*self.readers]:
            reader.fail(ClientClosed(STOPPING), keep=True)

    def _caller(self, request: Request) -> Caller:
        if self.keys is None:
            tenant = self.settings.gateway_tenant or ""
            return Caller(name=tenant, tenant=tenant)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        caller = self.keys.find(key.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            raise HTTPException(401, "no such API key", {"www-authenticate": "Bearer"})
        return caller

    def _count(self, answers: int) -> None:
        self.open += answers
        self.metrics.open.set(self.open)
        if self.open:
            self.idle.clear()
        else:
            self.idle.set()

    def _signer(self, tenant: str) -> Signer | None:
        folder: Path | None = self.settings.gateway_signers
        if folder is None:
            return None
        try:
            from aril.signer import Signer  # noqa: PLC0415 - cryptography, only where jobs are signed
        except ModuleNotFoundError:
            raise BadKey("gateway_signers need aril-client[signing]") from None

        return Signer.from_file(folder / f"{tenant}.pem")


NOBODY: Final = Caller(name="nobody", tenant="nobody")
"""Without limits."""


def site_of(request: Request) -> Site:
    """Return the gateway that serves a request."""
    site: Site = request.app.state.site
    return site

"""A gateway from start to exit.

Up: the address first, for the probes; then the brokers, for as long as they take to answer; ready.
Down, on SIGTERM or SIGINT: no more requests are taken, open answers get ``gateway_drain_seconds``,
then they end. Their readers go on at another gateway; the jobs run on. A second signal stops at
once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from importlib import metadata
from typing import TYPE_CHECKING, Final

import uvicorn

from aril.connecting.errors import SecurityError
from aril.connection import Connection
from aril.errors import BadKey, BrokerUnavailable
from aril.garbage import look_seldom, what_stays
from aril.gateway.app import make_app
from aril.gateway.keys import KeysError
from aril.gateway.logs import configure_logs
from aril.gateway.settings import LOOPBACK
from aril.gateway.site import Site
from aril.gateway.stored.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Generator

    from aril.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

EXIT_OK: Final = 0
EXIT_FAILED: Final = 1
EXIT_SETTING: Final = 2
RETRY_SECONDS: Final = 1.0
FAREWELL_SECONDS: Final = 2
"""For the last words of streams that a drain has ended; uvicorn wants whole seconds."""
IDLE_SECONDS: Final = 75
"""Longer than the usual load balancer keeps a connection: it closes first, and loses no request."""
BACKLOG: Final = 2_048
INBOX_EVENTS: Final = 128
"""Read ahead of each caller: 10,000 that all take nothing hold some 500 MB."""
INBOX_BYTES: Final = 16_384
"""The same of records with logprobs, eight times as large once decoded: 1.3 GB at most."""


def run_gateway(settings: GatewaySettings) -> int:
    """Run until a signal or a failure; return the exit code: 0 drained, 1 failed, 2 a setting."""
    configure_logs()
    try:
        security = settings.kafka_security()
        return asyncio.run(Gateway(settings, security).run())
    except (SecurityError, KeysError, BadKey, StoreError) as error:
        log.error("gateway_failed", extra={"error": str(error)})  # noqa: TRY400 - one line is meant for a person
        return EXIT_SETTING
    except Exception as error:
        log.error("gateway_failed", exc_info=error)  # noqa: TRY400 - as above
        return EXIT_FAILED


class Gateway:
    """One gateway process."""

    def __init__(self, settings: GatewaySettings, security: dict[str, object]) -> None:
        """Prepare. Raises `KeysError`, `BadKey`, `StoreError`."""
        self._settings = settings
        self._connection = Connection(
            settings.bootstrap,
            jobs_topic=settings.jobs_topic,
            replies_prefix=settings.replies_prefix,
            security=security,
            inbox_events=INBOX_EVENTS,
            inbox_bytes=INBOX_BYTES,
        )
        self._site = Site(settings, self._connection)
        self._stop = asyncio.Event()
        self._started = time.monotonic()

    async def run(self) -> int:
        """Come up, serve, leave; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        self._announce()
        try:
            listening = _listen(
                *self._settings.address, untaken_seconds=self._settings.gateway_wait_seconds
            )
        except OSError as error:
            where = self._settings.gateway_http
            log.error("gateway_failed", extra={"error": f"{where}: {error.strerror}"})  # noqa: TRY400 - as above
            return EXIT_FAILED
        server = _Server(
            uvicorn.Config(
                make_app(self._site),
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=IDLE_SECONDS,
                timeout_graceful_shutdown=FAREWELL_SECONDS,
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            return await self._connected(server, serving, listening)
        finally:
            server.should_exit = True
            await asyncio.wait({serving})

    def _on_signal(self, number: int) -> None:
        if self._stop.is_set():
            log.warning("stopping_at_once")
            os._exit(128 + number)
        log.info("stopping", extra={"signal": signal.Signals(number).name})
        self._site.drain()
        self._stop.set()

    def _announce(self) -> None:
        settings = self._settings
        told = {"bootstrap": settings.bootstrap, "http": settings.gateway_http}
        with contextlib.suppress(metadata.PackageNotFoundError):
            told["version"] = metadata.version("aril-client")
        log.info("starting", extra=told)
        if settings.gateway_tenant is not None and settings.address[0] not in LOOPBACK:
            why = "gateway_tenant: whoever reaches this address is that tenant, without a key"
            log.warning("callers_are_trusted", extra={"why": why})

    async def _connected(
        self, server: uvicorn.Server, serving: asyncio.Task[None], listening: socket.socket
    ) -> int:
        stopped = asyncio.create_task(self._stop.wait())
        connecting = asyncio.create_task(self._connect())
        await asyncio.wait({stopped, connecting, serving}, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            connecting.cancel()
            await asyncio.wait({connecting})
        keeping: asyncio.Task[None] | None = None
        try:
            if not connecting.cancelled() and not self._stop.is_set():
                connecting.result()
                self._site.connected.set()
                host, port = listening.getsockname()[:2]
                log.info(
                    "ready",
                    extra={
                        "seconds": round(time.monotonic() - self._started, 1),
                        "http": f"http://{f'[{host}]' if ':' in host else host}:{port}",
                        "stop_with": "SIGTERM or Ctrl-C drains, twice stops at once",
                    },
                )
                keeping = asyncio.create_task(self._site.keep())
                with what_stays():
                    code = await self._serve(serving, stopped, keeping)
                if code != EXIT_OK:
                    return code
                await self._drain(server, serving)
        finally:
            stopped.cancel()
            self._site.drain()
            if keeping is not None:
                await asyncio.wait({keeping})
            await self._site.close()
            await self._connection.close()
        log.info("gateway_stopped")
        return EXIT_OK

    async def _connect(self) -> None:
        """Wait for the brokers; say once what is wrong."""
        told = ""
        while True:
            try:
                await self._connection.open()
            except BrokerUnavailable as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("brokers_unreachable", extra={"error": told})
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    async def _serve(
        self,
        serving: asyncio.Task[None],
        stopped: asyncio.Task[bool],
        keeping: asyncio.Task[None],
    ) -> int:
        watching = asyncio.create_task(self._site.watch())
        broken = asyncio.create_task(self._connection.broken())
        looking = asyncio.create_task(look_seldom(self._site.idle.is_set))
        ours = {watching, broken, looking}
        try:
            every = {stopped, serving, keeping, *ours}
            await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
            for task in (keeping, *ours):
                if task.done() and (error := task.exception()) is not None:
                    log.error("gateway_failed", exc_info=error)
                    return EXIT_FAILED
        finally:
            for task in ours:
                task.cancel()
            await asyncio.wait(ours)
        return EXIT_OK

    async def _drain(self, server: uvicorn.Server, serving: asyncio.Task[None]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.gateway_drain_seconds):
                await self._site.idle.wait()
        if self._site.open:
            log.info("drain_ended", extra={"open": self._site.open})
        self._site.end()
        server.should_exit = True
        await asyncio.wait({serving})


class _Server(uvicorn.Server):
    """Within our own loop: signals are ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave them alone."""
        yield


def _listen(host: str, port: int, *, untaken_seconds: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux's; connections inherit it
        # What a caller does not take would else lie there for as long as its machine answers.
        most = int(untaken_seconds * 1_000)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, most)
    return listening

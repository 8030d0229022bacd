"""Probes and metrics over HTTP, from before the model loads until after the last commit.

``/livez``: should this process be restarted? The event loop answers by answering; the engine by
its heartbeat. ``/readyz``: does it take jobs? Not before the model is loaded, the topics are as the
contract wants them and the group has let it in; the body names each part. ``/metrics``:
Prometheus or OpenMetrics, whichever is asked for. A worker that is not ready is not to be
restarted for it.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import choose_encoder

from aril.worker.observe.logs import get_logger
from aril.worker.observe.metrics.page import Collected

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.observe.metrics import Metrics

log = get_logger(__name__)

# No step of a working engine takes this long; loading and compiling are over before it counts.
STALE_HEARTBEAT_SECONDS = 120.0
LAG_INTERVAL_SECONDS = 0.1


class Health:
    """What the probes answer from. Parts are not ready until they say so."""

    def __init__(self) -> None:
        self._waiting: dict[str, str] = {
            "model": "not loaded yet",
            "topics": "not checked yet",
            "group": "not joined yet",
        }
        self._engine_age: Callable[[], float] | None = None
        self._draining = False

    def is_ready(self, part: str) -> None:
        """Note that a part is ready."""
        self._waiting.pop(part, None)

    def not_ready(self, part: str, why: str) -> None:
        """Note what a part waits for, in one line."""
        self._waiting[part] = why

    def draining(self) -> None:
        """Note that no more jobs are taken."""
        self._draining = True

    @property
    def is_draining(self) -> bool:
        """Whether no more jobs are taken."""
        return self._draining

    def watch_engine(self, age: Callable[[], float]) -> None:
        """Take the engine's heartbeat into the liveness: seconds since it was last seen alive."""
        self._engine_age = age

    def liveness(self) -> tuple[bool, dict[str, str]]:
        """Return whether the process is alive, and why not."""
        age = self._engine_age() if self._engine_age else 0.0
        if age > STALE_HEARTBEAT_SECONDS:
            return False, {"engine": f"no step ended for {age:.0f} s"}
        return True, {}

    def readiness(self) -> tuple[bool, dict[str, str]]:
        """Return whether jobs are taken, and what is waited for."""
        if self._draining:
            return False, {"worker": "draining"}
        return not self._waiting, dict(self._waiting)


async def start_http(address: tuple[str, int], health: Health, metrics: Metrics) -> web.AppRunner:
    """Serve the probes; the caller cleans the runner up. Raises OSError if the port is taken."""

    def probe(state: Callable[[], tuple[bool, dict[str, str]]]) -> web.Response:
        good, parts = state()
        body = {"status": "ok" if good else "unavailable", **parts}
        return web.json_response(body, status=200 if good else 503, dumps=json.dumps)

    async def livez(_: web.Request) -> web.Response:
        return probe(health.liveness)

    async def readyz(_: web.Request) -> web.Response:
        return probe(health.readiness)

    async def scrape(request: web.Request) -> web.Response:
        metrics.ready.set(health.readiness()[0])
        metrics.draining.set(health.is_draining)
        encode, content_type = choose_encoder(",".join(request.headers.getall("Accept", [])))
        # What is counted lives on the event loop, so it is read here; made a page of elsewhere.
        loop = asyncio.get_running_loop()
        page = await loop.run_in_executor(encoding, encode, Collected(metrics.registry))
        return web.Response(body=page, headers={"Content-Type": content_type})

    # A thread of its own: those of the loop may all wait for a store that hangs.
    encoding = ThreadPoolExecutor(1, thread_name_prefix="metrics")

    async def close(_: web.Application) -> None:
        encoding.shutdown(wait=False)

    app = web.Application()
    app.on_cleanup.append(close)
    app.add_routes(
        [web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", scrape)]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, *address).start()
    except BaseException:
        await runner.cleanup()
        raise
    return runner


async def watch_loop_lag(metrics: Metrics) -> None:
    """Measure how late the event loop runs a timer, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_INTERVAL_SECONDS
        await asyncio.sleep(LAG_INTERVAL_SECONDS)
        metrics.loop_lag_seconds.observe(max(0.0, loop.time() - due))

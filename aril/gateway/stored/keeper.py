"""Which batches this gateway works on, and what has had its time.

Every gateway looks at all that are not over, and works on those whose lock it gets: so a batch
whose gateway has died is taken over within seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.batches.output import OutputInUse
from aril.errors import ArilError
from aril.gateway.stored.files import DAY_SECONDS
from aril.gateway.stored.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.client import Client
    from aril.gateway.metrics import Metrics
    from aril.gateway.settings import GatewaySettings
    from aril.gateway.stored.disk import Lock
    from aril.gateway.stored.records import Batch
    from aril.gateway.stored.store import Store

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0
SWEEP_SECONDS: Final = 600.0
REST_SECONDS: Final = 30.0
"""Before a batch that could not be gone on with is tried again."""
MOST_RUNNING: Final = 256
"""Batches of one gateway, of however many tenants."""


class _Name(NamedTuple):
    tenant: str
    batch: str


class _Rights(NamedTuple):
    """What one who works on a batch holds."""

    batch: Lock
    slot: Lock

    def free(self) -> None:
        self.batch.free()
        self.slot.free()


class Keeper:
    """Works on batches until it is stopped. Lives on one event loop."""

    def __init__(
        self,
        store: Store,
        settings: GatewaySettings,
        client: Callable[[str], Client],
        metrics: Metrics,
    ) -> None:
        """Prepare; `client` gives a tenant's."""
        self._store = store
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._running: dict[_Name, tuple[Runner, asyncio.Task[None]]] = {}
        self._resting: dict[_Name, float] = {}
        self._over: set[_Name] = set()
        self._news = asyncio.Event()
        self._stopping = False
        self._swept = float("-inf")
        self._told: str | None = None
        metrics.batches_running.set_function(lambda: float(len(self._running)))

    async def run(self) -> None:
        """Look, again and again, until `stop`; then return when all that runs has been left."""
        while not self._stopping:
            self._news.clear()
            await self._turn()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._news.wait()
        while self._running:
            await asyncio.wait([task for _, task in self._running.values()])

    def look(self) -> None:
        """Look now: there is a new batch."""
        self._news.set()

    def stop(self) -> None:
        """Ask nothing more; other gateways go on."""
        self._stopping = True
        self._news.set()
        for runner, _ in self._running.values():
            runner.stop()

    async def _turn(self) -> None:
        """Look once; what goes wrong with the folder is told once, and ends nothing else."""
        try:
            if time.monotonic() - self._swept > SWEEP_SECONDS:
                await asyncio.to_thread(self._sweep)
                self._swept = time.monotonic()
            await self._look()
        except OSError as error:
            if error.strerror != self._told:
                self._told = error.strerror
                log.warning("batches_unreachable", extra={"error": error.strerror})
        except Exception as error:
            log.error("batches_unreachable", exc_info=error)  # noqa: TRY400 - without its words
        else:
            self._told = None

    async def _look(self) -> None:
        now = time.monotonic()
        self._resting = {name: until for name, until in self._resting.items() if until > now}
        busy = frozenset((*self._running, *self._resting))
        for name in await asyncio.to_thread(self._waiting, busy):
            if self._stopping or len(self._running) >= MOST_RUNNING:
                return
            rights = await asyncio.to_thread(self._take, name)
            if rights is None:
                continue
            if self._stopping:
                rights.free()
                return
            runner = Runner(
                name.tenant,
                self._store.batches(name.tenant),
                self._store.files(name.tenant),
                self._client,
                concurrency=self._settings.gateway_batch_jobs,
            )
            task = asyncio.create_task(self._work(runner, name, rights))
            self._running[name] = (runner, task)

    async def _work(self, runner: Runner, name: _Name, rights: _Rights) -> None:
        told = {"tenant": name.tenant, "batch": name.batch}
        log.info("batch_taken", extra=told)
        over: Batch | None = None
        try:
            over = await runner.run(name.batch)
        except (ArilError, OutputInUse, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            log.warning("batch_stalled", extra=told | {"error": why})
            self._resting[name] = time.monotonic() + REST_SECONDS
        except Exception as error:
            log.error("batch_stalled", extra=told, exc_info=error)  # noqa: TRY400 - without its words
            self._resting[name] = time.monotonic() + REST_SECONDS
        finally:
            rights.free()
            del self._running[name]
            self._count(runner, over)
            self._news.set()
        if over is not None:
            counts = {"total": over.total, "completed": over.completed, "failed": over.failed}
            log.info("batch_over", extra=told | {"status": over.status, **counts})

    def _count(self, runner: Runner, over: Batch | None) -> None:
        self._metrics.batch_lines.labels("answered").inc(runner.tally.answered)
        self._metrics.batch_lines.labels("failed").inc(runner.tally.failed.total())
        if over is not None:
            self._metrics.batches.labels(over.status).inc()

    # --- in a thread

    def _waiting(self, busy: frozenset[_Name]) -> list[_Name]:
        """Return batches that are neither `busy` nor over, the oldest first."""
        names = {
            _Name(tenant, batch)
            for tenant in self._store.tenants()
            for batch in self._store.batches(tenant).newest_first()
        }
        self._over &= names
        found = [name for name in names - self._over - busy if self._is_waiting(name)]
        return sorted(found, key=lambda name: name.batch)

    def _is_waiting(self, name: _Name) -> bool:
        batches = self._store.batches(name.tenant)
        batch = batches.get(name.batch)
        if batch is None:
            return False
        if batch.is_over:
            batches.tidy(name.batch)  # its gateway may have died before it could
            self._over.add(name)
        return not batch.is_over

    def _take(self, name: _Name) -> _Rights | None:
        batches = self._store.batches(name.tenant)
        slot = batches.slot(self._settings.gateway_running_batches)
        if slot is None:
            return None
        lock = batches.lock(name.batch)
        if lock is None:
            slot.free()
            return None
        return _Rights(lock, slot)

    def _sweep(self) -> None:
        """Remove files and batches that have been kept long enough."""
        oldest = time.time() - self._settings.gateway_file_days * DAY_SECONDS
        for tenant in self._store.tenants():
            self._store.files(tenant).sweep()
            self._store.batches(tenant).sweep(oldest)

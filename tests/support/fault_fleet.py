"""Worker processes that are killed, halted, drained and replaced; and the topics they serve."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from tests.support.brokers import ROOT
from tests.support.fault_jobs import MAX_NEW_TOKENS
from tests.support.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aril.worker.topics.admin import Contract

PARTITIONS = 8  # of the jobs topic to begin with, and of reply topics for good
SESSION_SECONDS = 6.0  # the least that Kafka allows by default; deploy/kafka/run.sh says it, too
# `FAULT_PROTOCOL=consumer`: all workers are members by KIP-848, whose session the brokers set.
PROTOCOL = os.environ.get("FAULT_PROTOCOL", "classic")
DEATH_SECONDS = 60.0
TELLING_SECONDS = 1.0
TELLING = (
    "append_failed",
    "commit_failed",
    "commit_refused",
    "drain_cut_short",
    "epoch_raised",
    "job_interrupted",
    "job_suspected",
    "partitions_revoked",
    "prefix_lost",
    "read_back_failed",
    "unreadable_batch",
)


@dataclass(frozen=True)
class FaultSite:
    """A cluster's topics for one run."""

    bootstrap: str
    contract: Contract
    folder: Path
    away: str | None = None  # the tenant whose replies lie on a broker of their own

    @property
    def group(self) -> str:
        """The workers' group."""
        return f"g-{self.contract.jobs_topic}"

    @property
    def store(self) -> Path:
        """The file that tells workers of trouble with their adapter store."""
        return self.folder / f"store-{self.contract.jobs_topic}"


class FaultWorker(WorkerProcess):
    """A `tests.support.fault_worker`; `faults` are its `FAULT_*` variables."""

    def __init__(
        self, name: str, site: FaultSite, faults: Mapping[str, str], bootstrap: str
    ) -> None:
        contract = site.contract
        protocol = faults.get("ARIL_GROUP_PROTOCOL", PROTOCOL)
        session = {"session_timeout_ms": int(SESSION_SECONDS * 1_000)}
        super().__init__(
            name,
            site.folder,
            bootstrap=bootstrap,
            group=site.group,
            jobs_topic=contract.jobs_topic,
            dlq_topic=contract.dlq_topic,
            replies_prefix=contract.replies_prefix,
            max_rows=8,
            max_new_tokens=MAX_NEW_TOKENS,
            group_protocol=protocol,
            commit_interval_ms=200,
            drain_seconds=20,
            **(session if protocol == "classic" else {}),
        )
        self._environment |= {"FAULT_STORE": str(site.store), **faults}

    def start(self) -> None:
        """Start it."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.fault_worker"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def died(self, seconds: float) -> bool:
        """Wait until it has killed itself; False if it does not."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._waited, seconds)
        return self.exit_code == -signal.SIGKILL

    async def halted(self) -> bool:
        """Wait until it has halted itself; False if it does not."""
        until = time.monotonic() + DEATH_SECONDS
        process = psutil.Process(self.pid)
        while process.is_running() and process.status() != psutil.STATUS_STOPPED:
            if self.exit_code is not None or time.monotonic() > until:
                return False
            await asyncio.sleep(0.05)
        return self.exit_code is None

    async def busy(self) -> None:
        """Wait until jobs are running in it."""
        until = time.monotonic() + DEATH_SECONDS
        while not await self.metric("aril_running_jobs"):
            if self.exit_code is not None or time.monotonic() > until:
                raise AssertionError(f"{self.name} runs no job")
            await asyncio.sleep(0.05)

    def _waited(self, seconds: float) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    async def kill(self) -> None:
        """Kill it, if it lives, and wait for its end."""
        await self._kill()


class Fleet:
    """All workers of a run. `steady` ones are kept at a number; others come to die.

    `faults` are `FAULT_*` variables of every worker.
    """

    def __init__(self, site: FaultSite, faults: Mapping[str, str] | None = None) -> None:
        self.site = site
        self._faults = faults or {}
        self.steady: list[FaultWorker] = []
        self.failed: list[str] = []  # workers that ended otherwise than they were told to
        self.excused: set[str] = set()  # events that may have an exception in the log
        self.events: Counter[str] = Counter()  # what the workers' logs tell of their troubles
        self._all: list[FaultWorker] = []
        self._numbers = itertools.count(1)

    def new(self, *, bootstrap: str = "", **faults: str) -> FaultWorker:
        """Start a worker that is not one of the steady ones."""
        name = "-".join((f"w{next(self._numbers)}", *faults.values())).replace(":", "-")
        told = {f"FAULT_{key.upper()}": value for key, value in faults.items()}
        worker = FaultWorker(
            name, self.site, {**self._faults, **told}, bootstrap or self.site.bootstrap
        )
        worker.start()
        self._all.append(worker)
        return worker

    async def grow(self, count: int) -> None:
        """Bring the steady workers up to a number, and wait until they are ready."""
        while len(self.steady) < count:
            self.steady.append(self.new())
        await asyncio.gather(*(worker.ready() for worker in self.steady))

    async def drain(self, worker: FaultWorker) -> None:
        """Let a steady worker leave."""
        self.steady.remove(worker)
        worker.signal(signal.SIGTERM)
        await self.gone(worker)

    async def gone(self, worker: FaultWorker) -> None:
        """Wait for the end of one that was told to leave."""
        try:
            code = await worker.wait()
        except subprocess.TimeoutExpired:
            worker.signal(signal.SIGUSR1)  # its log tells where it is
            await asyncio.sleep(TELLING_SECONDS)
            raise AssertionError(f"{worker.name} does not end: {worker.log}") from None
        if code != 0:
            self.failed.append(f"{worker.name} drained with exit code {code}")

    async def kill_all(self) -> None:
        """Kill every steady worker at once."""
        doomed, self.steady = self.steady, []
        await asyncio.gather(*(worker.kill() for worker in doomed))

    async def close(self) -> None:
        """Leave no process behind."""
        for worker in self.steady:
            if worker.exit_code is not None:
                self.failed.append(f"{worker.name} ended by itself, exit code {worker.exit_code}")
        await asyncio.gather(*(worker.kill() for worker in self._all))
        for worker in self._all:
            told = worker.log.read_text()
            for name in TELLING:
                self.events[name] += told.count(f'"event": "{name}"')
            if any(map(self._is_trouble, told.splitlines())):
                self.failed.append(f"{worker.name} logged an exception: {worker.log}")

    def _is_trouble(self, line: str) -> bool:
        told = "Traceback" in line or '"exception"' in line
        return told and not any(f'"event": "{each}"' in line for each in self.excused)

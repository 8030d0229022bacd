"""Real worker processes for tests: started, waited for, signalled, and never left behind."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Self

import aiohttp

from aril.broker import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path
    from signal import Signals

READY_SECONDS = 120.0
EXIT_SECONDS = 60.0
LOST_TRACK = "unexpected_event"  # what a worker logs of a bug in the life of its jobs


class WorkerProcess:
    """One `aril worker`, or another module, with its own settings; an async context manager."""

    def __init__(self, name: str, folder: Path, **settings: object) -> None:
        self.name = name
        self.module: Sequence[str] = ("aril", "worker")  # what runs, with its arguments
        self.checkout: Path | None = None  # whose code runs, if not this one's
        self.log = folder / f"{name}.log"
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        told = {"http": f"127.0.0.1:{port}", "log_format": "json", "threads": 1} | settings
        inherited = {key: value for key, value in os.environ.items() if key[:5] != "ARIL_"}
        self._environment = inherited | {
            f"ARIL_{key.upper()}": str(value) for key, value in told.items()
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self._start()
        try:
            await self.ready()
        except BaseException:
            await self._kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kill()

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Self]:
        """Start it without waiting until it is ready."""
        self._start()
        try:
            yield self
        finally:
            await self._kill()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *self.module],
                cwd=self.checkout,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @contextmanager
    def standing(self) -> Iterator[Self]:
        """Keep it running for a whole module, ready from the start."""
        self._start()
        try:
            asyncio.run(self.ready())
            yield self
        finally:
            asyncio.run(self._kill())

    async def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        if self.log.exists():
            told = [line for line in self.log.read_text().splitlines() if LOST_TRACK in line]
            assert not told, f"{self.name} met an event that its table lacks: {told}"

    async def probe(self, path: str) -> tuple[int, str]:
        """Fetch one of the worker's pages; status 0 while nobody answers."""
        try:
            async with aiohttp.ClientSession() as session, session.get(self.url + path) as page:
                return page.status, await page.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def ready(self) -> None:
        """Wait until it takes jobs."""
        until = time.monotonic() + READY_SECONDS
        while (await self.probe("/readyz"))[0] != 200:
            if self.exit_code is not None or time.monotonic() > until:
                raise AssertionError(f"{self.name} did not become ready:\n{self.log.read_text()}")
            await asyncio.sleep(0.1)

    def signal(self, number: Signals) -> None:
        """Send a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    async def stop(self) -> int:
        """Let it drain and return the exit code."""
        assert self._process is not None
        self._process.terminate()
        return await self.wait()

    async def wait(self) -> int:
        """Wait for its end and return the exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait, EXIT_SECONDS)

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, None while it runs."""
        return None if self._process is None else self._process.poll()

    async def metric(self, name: str) -> float:
        """Return the sum over a metric's series."""
        _, page = await self.probe("/metrics")
        lines = [line for line in page.splitlines() if line.partition("{")[0].split()[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

"""A real worker as a process of the demo: started, waited for, and gone when the demo is."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import aiohttp

from aril.broker import _DIE_WITH_PARENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

SOURCE: Final = Path(__file__).parents[2]
COMMAND: Final = (sys.executable, "-m", "aril", "worker")
POLL_SECONDS: Final = 0.1
START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 8.0
LOG_TAIL_LINES: Final = 8
HTTP_OK: Final = 200


class WorkerFailed(Exception):  # noqa: N818 - named for what happened
    """The worker ended, or did not become ready; the message has the end of its log."""


class WorkerProcess:
    """`aril worker` with settings from `environment`. An async context manager.

    It has a process group of its own: a Ctrl-C at the terminal is for the demo, which stops it.
    """

    def __init__(self, environment: Mapping[str, str], *, address: str) -> None:
        """Prepare; `address` is the host:port of its probes and metrics."""
        self.address = address
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Path(tempfile.gettempdir()) / f"aril-demo-worker-{os.getpid()}.log"

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    async def __aenter__(self) -> Self:
        atexit.register(self._end)
        command = [*COMMAND]
        if sys.platform == "linux":
            launcher = [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid())]
            command = launcher + command
        # The settings of the person who runs the demo are for their own workers.
        inherited = {name: v for name, v in os.environ.items() if not name.startswith("ARIL_")}
        paths = [str(SOURCE), *filter(None, [inherited.get("PYTHONPATH")])]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns at once; our command
                command,
                env={**inherited, **self._environment, "PYTHONPATH": os.pathsep.join(paths)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS
            while process.poll() is None and time.monotonic() < deadline:  # noqa: ASYNC110 - a process has no event
                await asyncio.sleep(POLL_SECONDS)
        self._end()

    async def wait_until_ready(self, tell: Callable[[str], None]) -> None:
        """Wait until the worker takes jobs; `tell` is given what it waits for. `WorkerFailed`."""
        deadline = time.monotonic() + START_SECONDS
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while time.monotonic() < deadline:
                if self.pid is None:
                    raise WorkerFailed(f"the worker ended{self._log_tail()}")
                with contextlib.suppress(aiohttp.ClientError, TimeoutError, ValueError):
                    async with session.get(f"http://{self.address}/readyz") as answer:
                        body = json.loads(await answer.text())
                        if answer.status == HTTP_OK:
                            return
                        parts = {k: v for k, v in body.items() if k != "status"}
                        tell(", ".join(f"{part}: {state}" for part, state in parts.items()))
                await asyncio.sleep(POLL_SECONDS)
        raise WorkerFailed(f"the worker is not ready after {START_SECONDS:.0f} s{self._log_tail()}")

    def _end(self) -> None:
        atexit.unregister(self._end)
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._log.unlink(missing_ok=True)

    def _log_tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "".join(f"\n  {line}" for line in lines[-LOG_TAIL_LINES:])


async def read_metrics(url: str) -> str:
    """Return a worker's metrics as text, or nothing if it does not tell them."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        try:
            async with session.get(url) as answer:
                return await answer.text() if answer.status == HTTP_OK else ""
        except (aiohttp.ClientError, TimeoutError):
            return ""

"""The client for Node.js, built from this clone, and its example program as a process."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

FOLDER: Final = Path(__file__).parents[2] / "clients/node"
OLDEST_NODE: Final = (20, 19, 4)
REQUIRE: Final = "REQUIRE_NODE"  # in the environment: fail where there is no toolchain, do not skip
BUILD_SECONDS: Final = 300


def build() -> None:
    """Fetch the packages where that was not done, and build; skip where Node.js or npm is not."""
    found = shutil.which("node") and shutil.which("npm")
    version = _run("node", "--version").stdout if found else ""
    if tuple(map(int, re.findall(r"\d+", version))) < OLDEST_NODE:
        _miss(f"needs Node.js {'.'.join(map(str, OLDEST_NODE))} and npm, here: {version or 'none'}")
    fetched, lock = FOLDER / "node_modules/.package-lock.json", FOLDER / "package-lock.json"
    if not fetched.exists() or fetched.stat().st_mtime < lock.stat().st_mtime:
        got = _run("npm", "ci", "--prefer-offline", "--no-audit", "--no-fund")
        if got.returncode:
            _miss(f"npm ci: {' '.join(got.stderr.split())[-300:]}")
    built = _run("npm", "run", "build")
    assert built.returncode == 0, built.stdout + built.stderr


def unit_tests() -> tuple[int, str]:
    """Run the client's own tests; return the exit code and what they told."""
    done = _run("npm", "test")
    return done.returncode, done.stdout + done.stderr


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, check=False, timeout=BUILD_SECONDS
    )


def _miss(why: str) -> None:
    assert REQUIRE not in os.environ, why
    pytest.skip(why)


@dataclass
class Asking:
    """A run of `examples/ask.mjs --events`: a line for each event, and how it ended."""

    process: asyncio.subprocess.Process
    events: list[dict[str, Any]] = field(default_factory=list)
    err: str = ""

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Give the events as they come."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.events.append(json.loads(line))
            yield self.events[-1]

    async def end(self) -> int:
        """Read what is left; return the exit code."""
        async for _ in self.lines():
            pass
        assert self.process.stderr is not None
        self.err += (await self.process.stderr.read()).decode()
        return await self.process.wait()

    def of(self, kind: str, job: str | None = None) -> list[dict[str, Any]]:
        """Return the events of a kind, of one job or of all."""
        return [
            each
            for each in self.events
            if each["type"] == kind and (job is None or each["job"] == job)
        ]

    def ids(self, job: str | None = None) -> list[int]:
        """Return the tokens that were told."""
        return [token for each in self.of("tokens", job) for token in each["ids"]]

    def text(self, job: str | None = None) -> str:
        """Return the texts that were told, joined."""
        told = [each for each in self.events if job is None or each["job"] == job]
        return "".join(each["text"] for each in told if each["type"] in {"tokens", "done"})

    @property
    def answer(self) -> dict[str, Any]:
        """The one answer."""
        [answer] = self.of("answer")
        return answer


@asynccontextmanager
async def asking(
    *arguments: str, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Asking]:
    """Start the program; it is gone when this ends."""
    process = await asyncio.create_subprocess_exec(
        "node",
        "examples/ask.mjs",
        "--events",
        *arguments,
        cwd=FOLDER,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        limit=2**20,
    )
    try:
        yield Asking(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ask(*arguments: str, environ: Mapping[str, str] | None = None) -> Asking:
    """Run the program to its end; its exit code is that of its process."""
    async with asking(*arguments, environ=environ) as run:
        await run.end()
    return run


def connection(bootstrap: str, tenant: str, names: Sequence[str]) -> list[str]:
    """Return the arguments that say where jobs and replies are; ``names`` of topic and prefix."""
    jobs_topic, prefix = names
    return [
        *("--brokers", bootstrap, "--tenant", tenant),
        *("--jobs-topic", jobs_topic, "--replies-prefix", prefix),
    ]

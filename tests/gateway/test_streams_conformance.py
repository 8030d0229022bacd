"""The public conformance suite of Durable Streams, its half of reading, against a live gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import uvicorn

from aril.broker import free_port
from aril.gateway.app import make_app
from tests.support.durable_writer import DurableWriter
from tests.support.gateway_streams import gateway, new_broker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

ROOT: Final = Path(__file__).parents[2]
SUITE: Final = "@durable-streams/server-conformance-tests@0.3.6"
HOME: Final = ROOT / "build/durable-streams"
INSTALL_SECONDS: Final = 240
SUITE_SECONDS: Final = 280

EXCLUDED: Final = {
    "Fork - ": "forks are made by writers",
    "Idempotent Producer": "a writer's numbers; workers have epochs instead",
    "with-different-body-dedup": "the same",
    "producer-state-survives-close": "the same",
    "TTL|Expires-At": "a writer's; what is kept for how long is said of the topic",
    "(enforce|allow) (sequence|lexicographic seq) |seq values|case-sensitive seq": "a writer's",
    "Sequence Ordering Properties|with sequence numbers": "the same",
    "base64|header for binary streams": "a gateway's streams are JSON",
    "Reserved subscription": "left out by the suite itself",
}
PASSED: Final = 163
"""Of 338. A part of them asks for what the writer in tests/support answers: that it is one."""


class Server(uvicorn.Server):
    """Leaves signals to the tests."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def run(*command: str | Path, cwd: Path, seconds: float, **env: str) -> tuple[int, str]:
    """Run a command; return how it ended, and the end of what it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=os.environ | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(seconds):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        return -1, f"not finished within {seconds:g} s"
    return process.returncode or 0, said.decode(errors="replace")[-3_000:]


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """Run a gateway that can be written to."""
    broker = new_broker()
    async with gateway(broker, gateway_cors="*", gateway_keepalive_seconds=2.0) as caller:
        port = free_port()
        app = DurableWriter(make_app(caller.site), broker)
        server = Server(uvicorn.Config(app, port=port, log_level="warning"))
        running = asyncio.create_task(server.serve())
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await running


@pytest.mark.slow
@pytest.mark.timeout(INSTALL_SECONDS + SUITE_SECONDS + 60)
@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm")
async def test_the_public_suite(tmp_path: Path) -> None:
    """All of it passes but what only a writer could do, each with its reason."""
    HOME.mkdir(parents=True, exist_ok=True)
    suite = HOME / "node_modules" / SUITE.rpartition("@")[0]
    if not suite.exists():
        npm = ("npm", "install", "--no-audit", "--no-fund", "--prefix", HOME, SUITE)
        code, said = await run(*npm, cwd=HOME, seconds=INSTALL_SECONDS)
        if code:
            pytest.skip(f"npm cannot fetch the suite here: {said[-200:]}")
    shutil.copy(Path(__file__).parent / "node/durable_streams.test.mjs", HOME)
    report = tmp_path / "report.json"
    pattern = f"^(?!.*({'|'.join(EXCLUDED)}))"
    async with serving() as url:
        command = ("node_modules/.bin/vitest", "run", "--reporter=json", f"--outputFile={report}")
        _, said = await run(
            HOME / command[0],
            *command[1:],
            "-t",
            pattern,
            cwd=HOME,
            seconds=SUITE_SECONDS,
            CONFORMANCE_TEST_URL=url,
        )
    assert report.exists(), said
    told: dict[str, Any] = json.loads(report.read_text())
    tests = [each for file in told["testResults"] for each in file["assertionResults"]]
    failed = {
        each["fullName"]: each["failureMessages"][0][:300]
        for each in tests
        if each["status"] == "failed"
    }
    assert not failed
    assert (told["numTotalTests"], told["numPassedTests"]) == (338, PASSED)

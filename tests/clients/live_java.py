"""The Java client's example as a program: built once, run as often as a test likes."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.integration.conftest import Site

FOLDER: Final = Path(__file__).parents[2] / "clients/java"
Line = dict[str, Any]


def missing_tools() -> str | None:
    """Return why the client cannot be built here, None if it can."""
    missing = [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]
    return f"no {', '.join(missing)} here" if missing else None


def build() -> str:
    """Build the client without its own tests; return the class path of a program that uses it.

    Without the network where Maven has all it needs.
    """
    command = ["mvn", "-q", "-B", "-f", str(FOLDER / "pom.xml"), "package", "-DskipTests"]
    built = subprocess.run([*command, "-o"], capture_output=True, text=True, check=False)
    if built.returncode:
        built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    (jar,) = (FOLDER / "target").glob("aril-client-*.jar")
    return f"{jar}:{FOLDER / 'target/libs'}/*"


class Asking:
    """One running program: its lines as they come."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def __aiter__(self) -> AsyncIterator[Line]:
        return self._lines()

    async def _lines(self) -> AsyncIterator[Line]:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield json.loads(line)

    async def rest(self) -> list[Line]:
        """Return all lines that are still to come."""
        return [line async for line in self]

    def kill(self) -> None:
        """End it as a machine that fails does."""
        self._process.kill()

    async def ended(self) -> int:
        """Wait for its end and return the exit code."""
        return await self._process.wait()


@dataclass(frozen=True)
class Program:
    """`examples/Ask.java` on a site's topics."""

    class_path: str
    site: Site

    @asynccontextmanager
    async def asking(self, tenant: str, **arguments: object) -> AsyncIterator[Asking]:
        """Run it for one question; it is killed if it still runs in the end."""
        told = {
            "bootstrap": self.site.kafka.bootstrap,
            "jobs_topic": self.site.contract.jobs_topic,
            "replies_prefix": self.site.contract.replies_prefix,
            "tenant": tenant,
        } | arguments
        process = await asyncio.create_subprocess_exec(
            "java",
            "-cp",
            self.class_path,
            str(FOLDER / "examples/Ask.java"),
            *(f"{name}={value}" for name, value in told.items()),
            stdout=subprocess.PIPE,
        )
        try:
            yield Asking(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def ask(self, tenant: str, **arguments: object) -> list[Line]:
        """Return all that it prints for one question."""
        async with self.asking(tenant, **arguments) as asking:
            return await asking.rest()


def ids_of(lines: list[Line]) -> list[int]:
    """Return the token ids of all lines."""
    return [token for line in lines for token in line.get("ids", [])]


def text_of(lines: list[Line]) -> str:
    """Return the text of all lines."""
    return "".join(line.get("text", "") for line in lines)

"""`aril batch run` as a process that is killed and started again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from aril.worker.topics.admin import Contract
    from tests.support.brokers import Kafka


class BatchProcess:
    """`aril batch run` of one file for acme."""

    def __init__(
        self, kafka: Kafka, contract: Contract, source: Path, output: Path, *, concurrency: int
    ) -> None:
        self.output = output
        self._command = [
            *(sys.executable, "-m", "aril", "batch", "run", str(source), "-o", str(output)),
            *("-t", "acme", "--concurrency", str(concurrency)),
        ]
        self._environment = os.environ | {
            "ARIL_BOOTSTRAP": kafka.bootstrap,
            "ARIL_JOBS_TOPIC": contract.jobs_topic,
            "ARIL_REPLIES_PREFIX": contract.replies_prefix,
        }

    def start(self) -> subprocess.Popen[str]:
        """Start it, or start it again."""
        return subprocess.Popen(
            self._command, env=self._environment, stderr=subprocess.PIPE, text=True
        )

    def answered(self) -> int:
        """Count the lines that are whole."""
        return self.output.read_bytes().count(b"\n") if self.output.exists() else 0

    async def until(self, process: subprocess.Popen[str], lines: int) -> None:
        """Wait until so many lines are answered."""
        while self.answered() < lines:
            assert process.poll() is None, process.communicate()[1]
            await asyncio.sleep(0.02)

    async def killed_at(self, lines: int) -> None:
        """Run it until then, and kill it."""
        process = self.start()
        try:
            await self.until(process, lines)
        finally:
            process.kill()
            await asyncio.to_thread(process.communicate)

    async def finished(self) -> tuple[int, str]:
        """Run it to its end; return exit code and what it said."""
        process = self.start()
        try:
            _, said = await asyncio.to_thread(process.communicate)
        finally:
            process.kill()
        return process.returncode, said

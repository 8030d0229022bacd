"""An Apache Kafka of a test's own, to be halted, and killed and started again in its place."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from aril.broker import LOOPBACK, cluster_id
from tests.support.brokers import JAVA_SECONDS, ApacheKafka


class MortalKafka(ApacheKafka):
    """Keeps its port and its data over its deaths. What was acknowledged survives a process."""

    async def halt(self, seconds: float) -> None:
        """Let it do nothing for a while, with all connections open."""
        assert self.pid is not None
        os.killpg(self.pid, signal.SIGSTOP)
        await asyncio.sleep(seconds)
        os.killpg(self.pid, signal.SIGCONT)

    async def die(self, seconds: float) -> None:
        """Kill it and, after a while, start it again."""
        process, port = self._process, self._port
        assert process is not None
        assert port is not None
        os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)
        await asyncio.sleep(seconds)
        self._spawn(port)
        await asyncio.to_thread(self._wait, port)

    def _wait(self, port: int) -> None:
        until = time.monotonic() + JAVA_SECONDS
        while cluster_id(LOOPBACK, port) != self.cluster_id:
            assert time.monotonic() < until, f"no broker: {self.log.read_text()[-2_000:]}"
            time.sleep(0.1)

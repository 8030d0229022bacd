"""An Apache Kafka of a test's own, to be halted, and killed and started again in its place."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

from aril.broker import LOOPBACK, cluster_id, free_port
from tests.support.brokers import JAVA_SECONDS, ApacheKafka

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


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
        await self.kill()
        await asyncio.sleep(seconds)
        await self.revive()

    async def kill(self) -> None:
        """End it without warning."""
        process = self._process
        assert process is not None
        os.killpg(process.pid, signal.SIGKILL)
        await asyncio.to_thread(process.wait)

    async def revive(self) -> None:
        """Start it again in its place, with its data."""
        assert self._port is not None
        self._spawn(self._port)
        await asyncio.to_thread(self._wait, self._port)

    def _wait(self, port: int) -> None:
        until = time.monotonic() + JAVA_SECONDS
        while cluster_id(LOOPBACK, port) != self.cluster_id:
            assert time.monotonic() < until, f"no broker: {self.log.read_text()[-2_000:]}"
            time.sleep(0.1)


class FirstKafka(ApacheKafka):
    """The broker of a cluster that others join."""

    def __init__(self, data: Path) -> None:
        super().__init__(data)
        self.quorum = f"{LOOPBACK}:{free_port()}"

    def _environment(self, port: int) -> Mapping[str, str]:
        own = {"KAFKA_CONTROLLER_PORT": self.quorum.rpartition(":")[2]}
        return {**super()._environment(port), **own}


class SecondKafka(MortalKafka):
    """A broker that joins the first one's cluster; partitions may be placed on it alone."""

    def __init__(self, data: Path, first: FirstKafka) -> None:
        super().__init__(data)
        self.cluster_id = first.cluster_id
        self._joins = first.quorum

    def _environment(self, port: int) -> Mapping[str, str]:
        own = {"KAFKA_NODE_ID": "2", "KAFKA_JOINS": self._joins}
        return {**super()._environment(port), **own}

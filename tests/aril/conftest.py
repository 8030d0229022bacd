"""A broker with the contract's topics, and a command line to run against it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from aril import Client
from aril.worker.topics.admin import Contract, TopicPlan, ensure_topics
from tests.support.fake_worker import FakeWorker

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from tests.support.brokers import Kafka

ROOT = Path(__file__).parents[2]
TENANTS = ("acme", "blackbeard")


@dataclass(frozen=True)
class Finished:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


class RunAril(Protocol):
    """Runs `aril` with arguments, and perhaps standard input and environment."""

    async def __call__(
        self, *arguments: str, stdin: str = "", env: dict[str, str] | None = None
    ) -> Finished:
        """Wait for the end of the command."""


@dataclass(frozen=True)
class Cluster:
    """A broker and the names of topics on it that only these tests use."""

    bootstrap: str
    prefix: str

    @property
    def contract(self) -> Contract:
        """The contract under these names."""
        return Contract(
            jobs_topic=f"{self.prefix}.jobs",
            dlq_topic=f"{self.prefix}.dlq",
            replies_prefix=f"{self.prefix}.replies.",
        )

    @property
    def env(self) -> dict[str, str]:
        """The settings that lead a command here."""
        return {
            "ARIL_BOOTSTRAP": self.bootstrap,
            "ARIL_JOBS_TOPIC": self.contract.jobs_topic,
            "ARIL_DLQ_TOPIC": self.contract.dlq_topic,
            "ARIL_REPLIES_PREFIX": self.contract.replies_prefix,
        }

    def client(self, tenant: str, *, inbox_events: int = 512) -> Client:
        """Return a client of one of the tenants."""
        return Client(
            self.bootstrap,
            tenant,
            jobs_topic=self.contract.jobs_topic,
            replies_prefix=self.contract.replies_prefix,
            inbox_events=inbox_events,
        )

    def worker(self) -> AbstractAsyncContextManager[FakeWorker]:
        """Return a worker that answers every job with its own words."""
        contract = self.contract
        return FakeWorker.on_kafka(
            self.bootstrap,
            jobs_topic=contract.jobs_topic,
            replies_prefix=contract.replies_prefix,
        )


@pytest.fixture(scope="session")
def cluster(kafka: Kafka) -> Cluster:
    """Create topics for two tenants."""
    cluster = Cluster(kafka.bootstrap, f"client-{uuid.uuid4().hex[:8]}")
    plan = TopicPlan(jobs_partitions=2, reply_partitions=3)
    asyncio.run(ensure_topics(kafka.bootstrap, cluster.contract, TENANTS, plan))
    return cluster


@pytest.fixture
def aril() -> RunAril:
    """Return a way to run the command line as a process of its own."""

    async def run(*arguments: str, stdin: str = "", env: dict[str, str] | None = None) -> Finished:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "aril",
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
        )
        out, err = await process.communicate(stdin.encode())
        return Finished(process.returncode or 0, out.decode(), err.decode())

    return run

"""Measure what the exactly-once protocol costs while nothing fails.

    python -m benchmarks.protocol_cost

Two worker processes on one real Kafka, each with its own topics and group: one as it is, one with
the protocol taken out (`benchmarks.plain_worker` says of what). They get the same loads in turns,
in the order with, without, without, with, so that a machine that changes its speed changes both; a
ratio is always that of two neighbours. The reader is the same for both and knows no protocol: it
counts tokens and terminals.

CPU time is the worker process's own, by the kernel's clock for it. It is the less noisy figure,
and the only one that tells anything where the engine's pace decides how many tokens there are.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import subprocess
import sys
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import msgpack
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from aril.broker import free_port
from benchmarks.instant import load_instant
from benchmarks.plain_worker import switch_off
from benchmarks.queue_path import ready
from benchmarks.record import Row, show, write
from schemas import Job, Sampling, encode_request, reply_partition, reply_topic
from tests.support.brokers import running_kafka
from worker.app import run_worker
from worker.settings import load_settings
from worker.topics.admin import Contract, TopicPlan, ensure_topics

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION = "protocol_cost"
TENANTS = ("acme", "blackbeard", "ledgerly", "visitor")
PARTITIONS = 8
ROWS = 64
ROUNDS = 10  # of both workers, by one pair of processes
PAIRS = 3  # of processes: where one lies in memory is part of how fast it is
ANSWER_SECONDS = 60.0

Mode = Literal["with", "without"]


@dataclass(frozen=True)
class Load:
    """One way of loading the workers."""

    name: str
    jobs: int
    tokens: int
    pace: float  # seconds a step


LOADS = (
    Load("long answers", jobs=512, tokens=512, pace=0.0),
    Load("short answers", jobs=6_000, tokens=8, pace=0.0),
    Load("20 ms a step", jobs=64, tokens=100, pace=0.020),
)


@dataclass(frozen=True)
class Measured:
    """What one run of a load showed."""

    tokens_per_second: float
    cpu_per_million: float  # seconds


class Side:
    """One worker, its topics, and who asks and reads there."""

    def __init__(self, bootstrap: str, mode: Mode, pace: float) -> None:
        self._bootstrap = bootstrap
        self._stack = AsyncExitStack()
        stem = uuid.uuid4().hex[:6]
        self._contract = Contract(
            jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"r-{stem}."
        )
        self._url = f"http://127.0.0.1:{(port := free_port())}/readyz"
        settings = {
            "bootstrap": bootstrap,
            "group": stem,
            "jobs_topic": self._contract.jobs_topic,
            "dlq_topic": self._contract.dlq_topic,
            "replies_prefix": self._contract.replies_prefix,
            "http": f"127.0.0.1:{port}",
            "max_rows": ROWS,
            "log_level": "error",
        }
        self._command = [sys.executable, "-m", "benchmarks.protocol_cost"]
        self._command += ["--worker", mode, "--pace", str(pace)]
        self._command += [f"{name}={value}" for name, value in settings.items()]

    async def __aenter__(self) -> Self:
        plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=PARTITIONS)
        await ensure_topics(self._bootstrap, self._contract, TENANTS, plan)
        self._producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap)
        await self._producer.start()
        self._stack.push_async_callback(self._producer.stop)
        self._reader = AIOKafkaConsumer(bootstrap_servers=self._bootstrap)
        await self._reader.start()
        self._stack.push_async_callback(self._reader.stop)
        topics = [reply_topic(self._contract.replies_prefix, tenant) for tenant in TENANTS]
        parts = [TopicPartition(topic, part) for topic in topics for part in range(PARTITIONS)]
        self._reader.assign(parts)
        await self._reader.seek_to_beginning(*parts)
        self._process = subprocess.Popen(self._command)  # noqa: ASYNC220, S603 - our own module
        self._stack.push_async_callback(self._end_worker)
        await ready(self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @property
    def pid(self) -> int:
        """The worker's process."""
        return self._process.pid

    async def _end_worker(self) -> None:
        self._process.terminate()
        await asyncio.to_thread(self._process.wait)

    async def run(self, load: Load) -> Measured:
        """Send all jobs at once, read until the last terminal."""
        requests = [self._request(number, load) for number in range(load.jobs)]
        cpu, begun = cpu_seconds(self.pid), time.monotonic()
        for job, value in requests:
            place = reply_partition(job, PARTITIONS)
            await self._producer.send(self._contract.jobs_topic, value, job.encode(), place)
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._read(load)
        lasted, cpu = time.monotonic() - begun, cpu_seconds(self.pid) - cpu
        tokens = load.jobs * load.tokens
        return Measured(tokens / lasted, cpu / tokens * 1e6)

    def _request(self, number: int, load: Load) -> tuple[str, bytes]:
        job = Job(
            id=uuid.uuid4().hex,
            tenant=TENANTS[number % len(TENANTS)],
            prompt="x",
            sampling=Sampling(max_tokens=load.tokens),
        )
        return job.id, encode_request(job)

    async def _read(self, load: Load) -> None:
        tokens = ended = 0
        while ended < load.jobs:
            batches = await self._reader.getmany(timeout_ms=200)
            for record in (record for records in batches.values() for record in records):
                fields = msgpack.unpackb(record.value)
                tokens += len(fields.get("ids", ()))
                ended += fields["kind"] == "done"
        if (tokens, ended) != (load.jobs * load.tokens, load.jobs):
            raise RuntimeError(f"{tokens} tokens and {ended} terminals came for {load}")


def cpu_seconds(pid: int) -> float:
    """Return what all threads of a process have used, to the nanosecond.

    The clock's number is made as clock_getcpuclockid(3) makes it on Linux.
    """
    return time.clock_gettime((~pid << 3) | 2)


async def measure(bootstrap: str, load: Load) -> dict[Mode, list[Measured]]:
    """Run a load on both workers in turns."""
    found: dict[Mode, list[Measured]] = {"with": [], "without": []}
    for _ in range(PAIRS):
        async with (
            Side(bootstrap, "with", load.pace) as whole,
            Side(bootstrap, "without", load.pace) as plain,
        ):
            sides: list[tuple[Mode, Side]] = [("with", whole), ("without", plain)]
            for _, side in sides:  # warm-up: connections, first look-ups
                await side.run(load)
            for _ in range(ROUNDS):
                for mode, side in sides:
                    found[mode].append(await side.run(load))
                sides.reverse()
    return found


def rows_of(load: Load, found: dict[Mode, list[Measured]]) -> list[Row]:
    """Make the CSV's rows of one load."""
    config = (
        f"{load.jobs} jobs x {load.tokens} tokens, {ROWS} rows, {load.pace * 1e3:.0f} ms a step, "
        f"{PARTITIONS} partitions, {PAIRS} pairs of workers, {ROUNDS} rounds each"
    )
    row = functools.partial(Row.of, question=QUESTION, x=load.name, config=config)
    rows = []
    for mode, runs in found.items():
        rates: Sequence[float] = [run.tokens_per_second for run in runs]
        rows.append(row(rates, provider=mode, metric="tokens/s", unit="1/s"))
        costs: Sequence[float] = [run.cpu_per_million for run in runs]
        rows.append(row(costs, provider=mode, metric="CPU per 1e6 tokens", unit="s"))
    both = list(zip(found["with"], found["without"], strict=True))
    told: dict[str, Any] = {"provider": "with / without", "unit": "1"}
    rates = [one.tokens_per_second / other.tokens_per_second for one, other in both]
    costs = [one.cpu_per_million / other.cpu_per_million for one, other in both]
    return [
        *rows,
        row(rates, metric="ratio of tokens/s", **told),
        row(costs, metric="ratio of CPU", **told),
    ]


async def run_all(bootstrap: str) -> list[Row]:
    """Measure every load."""
    return [row for load in LOADS for row in rows_of(load, await measure(bootstrap, load))]


def be_worker(mode: Mode, pace: float, told: Sequence[str]) -> int:
    """Be the worker of one side; return its exit code."""
    if mode == "without":
        switch_off()
    settings = load_settings(flags=dict(each.split("=", 1) for each in told)).settings
    return run_worker(settings, load=functools.partial(load_instant, pace=pace))


def main() -> None:
    """Measure and write the CSV, or be a worker of the measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", choices=("with", "without"), help=argparse.SUPPRESS)
    parser.add_argument("--pace", type=float, default=0.0, help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        sys.exit(be_worker(arguments.worker, arguments.pace, arguments.settings))
    with contextlib.ExitStack() as held:
        kafka = held.enter_context(running_kafka())
        rows = asyncio.run(run_all(kafka.bootstrap))
    show(rows)
    write(QUESTION, rows)


if __name__ == "__main__":
    main()

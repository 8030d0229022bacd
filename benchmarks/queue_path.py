"""Measure what the way through the queue costs when the engine costs nothing.

    python -m benchmarks.queue_path

A real Kafka, one worker process with an engine that answers at once, and a reader, all on this
machine. Full load: tokens a second, CPU seconds of the worker for a million tokens, tokens a
record. Paced: an engine that steps at a fixed rate below that; the added latency of each token,
from the engine's hand to the reader's.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import statistics
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
import psutil

from aril import Client, TokensEvent
from aril.broker import free_port
from benchmarks.instant import load_instant
from benchmarks.record import Row, show, write
from tests.support.brokers import running_kafka
from worker.app import run_worker
from worker.settings import load_settings
from worker.topics.admin import Contract, TopicPlan, ensure_topics

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION = "queue_path"
TENANTS = ("acme", "blackbeard", "ledgerly", "visitor")
PARTITIONS = 8


@dataclass(frozen=True)
class Load:
    """One way of loading the worker."""

    name: str
    jobs: int
    tokens: int
    rows: int
    pace: float  # seconds a step
    repetitions: int = 5


LOADS = (
    Load("full load", jobs=256, tokens=512, rows=64, pace=0.0),
    # One token a record: a step is longer than an append.
    Load("16 rows, 20 ms a step", jobs=16, tokens=200, rows=16, pace=0.020),
    Load("64 rows, 20 ms a step", jobs=64, tokens=200, rows=64, pace=0.020),
)


@dataclass(frozen=True)
class Measured:
    """What one repetition showed."""

    tokens_per_second: float
    cpu_seconds_per_million: float
    latencies_ms: Sequence[float]
    tokens_per_record: float


async def ask(client: Client, load: Load, latencies: list[float]) -> int:
    """Run one job; note each token's latency, return the number of records."""
    records = 0
    options = {"max_tokens": load.tokens}
    async for event in client.stream("x", sampling=options, job_id=uuid.uuid4().hex):
        if isinstance(event, TokensEvent):
            now = time.monotonic_ns()
            records += 1
            latencies += [(now - int(made)) / 1e6 for made in event.text.split()]
    return records


async def measure(
    bootstrap: str, contract: Contract, load: Load, worker: psutil.Process
) -> Measured:
    """Send all jobs at once and read every token."""
    clients = [
        Client(
            bootstrap,
            tenant,
            jobs_topic=contract.jobs_topic,
            replies_prefix=contract.replies_prefix,
        )
        for tenant in TENANTS
    ]
    for client in clients:
        await client.__aenter__()
    latencies: list[float] = []
    cpu = sum(worker.cpu_times()[:2])
    begun = time.monotonic()
    work = (ask(clients[each % len(clients)], load, latencies) for each in range(load.jobs))
    records = sum(await asyncio.gather(*work))
    lasted = time.monotonic() - begun
    cpu = sum(worker.cpu_times()[:2]) - cpu
    for client in clients:
        await client.close()
    tokens = load.jobs * load.tokens
    if len(latencies) != tokens:
        raise RuntimeError(f"{tokens} tokens were asked for, {len(latencies)} came")
    return Measured(tokens / lasted, cpu / tokens * 1e6, latencies, tokens / records)


async def run_load(bootstrap: str, load: Load) -> list[Row]:
    """Start a worker for one load, measure, stop it."""
    stem = uuid.uuid4().hex[:6]
    contract = Contract(
        jobs_topic=f"jobs-{stem}", dlq_topic=f"dlq-{stem}", replies_prefix=f"r-{stem}."
    )
    plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=PARTITIONS)
    await ensure_topics(bootstrap, contract, TENANTS, plan)
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.queue_path", "--worker", str(load.pace)]
    flags = {
        "bootstrap": bootstrap,
        "group": stem,
        "jobs_topic": contract.jobs_topic,
        "dlq_topic": contract.dlq_topic,
        "replies_prefix": contract.replies_prefix,
        "http": f"127.0.0.1:{port}",
        "max_rows": load.rows,
        "log_level": "error",
    }
    command += [f"{name}={value}" for name, value in flags.items()]
    process = subprocess.Popen(command)  # noqa: ASYNC220, S603 - our own module, once
    try:
        await ready(f"http://127.0.0.1:{port}/readyz")
        worker = psutil.Process(process.pid)
        await measure(bootstrap, contract, load, worker)  # warm-up: connections, first look-ups
        runs = [await measure(bootstrap, contract, load, worker) for _ in range(load.repetitions)]
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    return rows_of(load, runs)


async def ready(url: str) -> None:
    """Wait for the worker."""
    async with aiohttp.ClientSession() as session, asyncio.timeout(60):
        while True:
            try:
                async with session.get(url) as page:
                    if page.status == 200:
                        return
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.1)


def rows_of(load: Load, runs: Sequence[Measured]) -> list[Row]:
    """Make the CSV's rows of one load."""
    config = f"{load.jobs} jobs x {load.tokens} tokens, {load.rows} rows, {PARTITIONS} partitions"
    row = functools.partial(
        Row.of, question=QUESTION, provider=load.name, x=load.rows, config=config
    )
    percentiles = [statistics.quantiles(run.latencies_ms, n=100) for run in runs]
    return [
        row([run.tokens_per_second for run in runs], metric="tokens/s", unit="1/s"),
        row([run.cpu_seconds_per_million for run in runs], metric="CPU per 1e6 tokens", unit="s"),
        row([run.tokens_per_record for run in runs], metric="tokens per record", unit="1"),
        row([each[49] for each in percentiles], metric="latency of a token, p50", unit="ms"),
        row([each[98] for each in percentiles], metric="latency of a token, p99", unit="ms"),
    ]


async def run_all(bootstrap: str) -> list[Row]:
    """Measure every load."""
    return [row for load in LOADS for row in await run_load(bootstrap, load)]


def main() -> None:
    """Measure and write the CSV, or be the worker of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--worker", type=float, help=argparse.SUPPRESS)
    parser.add_argument("settings", nargs="*", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        flags = dict(each.split("=", 1) for each in arguments.settings)
        load = functools.partial(load_instant, pace=arguments.worker)
        sys.exit(run_worker(load_settings(flags=flags).settings, load=load))
    with running_kafka() as kafka:
        rows = asyncio.run(run_all(kafka.bootstrap))
    show(rows)
    write(QUESTION, rows)


if __name__ == "__main__":
    main()

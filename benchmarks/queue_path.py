"""Measure what the way through the queue costs when the engine costs nothing.

    python -m benchmarks.queue_path    # writes queue_path.csv

A real Kafka, one worker process with an engine that answers at once, and a reader, all on this
machine. Full load: tokens a second, CPU seconds of the worker for a million tokens, tokens a
record. Paced: an engine that steps at a fixed rate below that; the added latency of each token,
from the engine's hand to the reader's.
"""

from __future__ import annotations

import asyncio
import functools
import statistics
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril import Client, TokensEvent
from benchmarks.record import Row
from benchmarks.stack import PACED, Stack, cpu_seconds, keep_measured

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION = "queue_path"
PARTITIONS = 8
REPETITIONS = 5


@dataclass(frozen=True)
class Load:
    """One way of loading the worker."""

    name: str
    jobs: int
    tokens: int
    rows: int
    pace: float  # seconds a step


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


async def measure(stack: Stack, load: Load, pid: int) -> Measured:
    """Send all jobs at once and read every token."""
    latencies: list[float] = []
    async with stack.clients() as clients:
        cpu, begun = cpu_seconds(pid), time.monotonic()
        work = (ask(clients[each % len(clients)], load, latencies) for each in range(load.jobs))
        records = sum(await asyncio.gather(*work))
        lasted, cpu = time.monotonic() - begun, cpu_seconds(pid) - cpu
    tokens = load.jobs * load.tokens
    if len(latencies) != tokens:
        raise RuntimeError(f"{tokens} tokens were asked for, {len(latencies)} came")
    return Measured(tokens / lasted, cpu / tokens * 1e6, latencies, tokens / records)


async def run_load(bootstrap: str, load: Load) -> list[Row]:
    """Start a worker for one load, measure, stop it."""
    async with Stack(bootstrap, partitions=PARTITIONS, reply_partitions=PARTITIONS) as stack:
        worker = await stack.add_worker(PACED, str(load.pace), max_rows=load.rows)
        await measure(stack, load, worker.pid)  # warm-up: connections, first look-ups
        return rows_of(load, [await measure(stack, load, worker.pid) for _ in range(REPETITIONS)])


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


if __name__ == "__main__":
    keep_measured(QUESTION, run_all)

"""Measure whether the worker itself holds more memory with every job, without a model.

    python -m benchmarks.worker_memory [--jobs 60000]    # writes worker_memory.csv

What `benchmarks.memory` sees is mostly the model's libraries. Here the engine answers at once
(`benchmarks.instant`) and torch is not imported; queue, ledger, streams and metrics are what is
left. A real Kafka, one worker; its resident memory at the start and as jobs go by.
"""

from __future__ import annotations

import argparse
import functools

import psutil

from benchmarks.protocol_cost import PARTITIONS, ROWS, Load, Side
from benchmarks.record import Row
from benchmarks.stack import keep_measured

QUESTION = "worker_memory"
TOKENS = 2
PARTS = 12
MB = 1_000_000


async def measure(bootstrap: str, jobs: int) -> list[Row]:
    """Run jobs through one worker, a twelfth at a time; read its memory after each."""
    load = Load("jobs", jobs=jobs // PARTS, tokens=TOKENS, pace=0.0)
    async with Side(bootstrap, "with", load.pace) as side:
        process = psutil.Process(side.pid)
        sizes = {0: process.memory_info().rss}
        for part in range(1, PARTS + 1):
            await side.run(load)
            sizes[part * load.jobs] = process.memory_info().rss
    return [
        Row.of(
            [size / MB],
            question=QUESTION,
            provider="worker without a model",
            metric="resident memory",
            x=done,
            unit="MB",
            config=f"{TOKENS} tokens a job, {ROWS} rows, {PARTITIONS} partitions",
        )
        for done, size in sizes.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=60_000)
    keep_measured(QUESTION, functools.partial(measure, jobs=parser.parse_args().jobs))

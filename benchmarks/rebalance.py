"""Measure what a rebalance costs a long queue: a second worker joins while thousands of jobs wait.

    python -m benchmarks.rebalance [--jobs 4000] [--beside CHECKOUT]
    python -m benchmarks.rebalance --standstill ROUNDS

A real Kafka, workers whose engine takes so long for a step that the queue lasts for about a minute.
All jobs are fresh to the first worker. When the second one has joined, half of the partitions are
its, and their jobs have to be claimed; those of the half that stays need not be. Counted are the
claims of each once all jobs are answered, and the jobs that stayed where they were.

With `--standstill` it measures how long partitions stand still instead (`benchmarks.standstill`).
Each way leaves the other's rows in the CSV as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.record import Row, read
from benchmarks.stack import PACED, Stack, keep_measured
from benchmarks.standstill import METRIC, standstills

if TYPE_CHECKING:
    from tests.support.workers import WorkerProcess

QUESTION: Final = "rebalance"
PARTITIONS: Final = 8
ROWS: Final = 16
TOKENS: Final = 2
SECONDS: Final = 60.0  # in which one worker would answer all
PATIENCE: Final = 300.0
COUNTED: Final = {
    "claims": "aril_claims_total",
    "stayed": "aril_jobs_kept_total",
    "read back": "aril_records_read_back_total",
}


async def answered(*workers: WorkerProcess) -> float:
    """Return how many jobs these have answered."""
    return sum([await worker.metric("aril_jobs_total") for worker in workers])


async def once(bootstrap: str, jobs: int, checkout: Path | None) -> dict[tuple[str, str], float]:
    """Let a second worker join; return what each has counted, and what was unfinished then."""
    stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=1)
    pace = SECONDS * ROWS / (jobs * TOKENS)
    async with stack:
        first = await stack.add_worker(PACED, str(pace), checkout=checkout, max_rows=ROWS)
        await stack.leave_jobs(jobs, TOKENS)
        second = await stack.add_worker(PACED, str(pace), checkout=checkout, max_rows=ROWS)
        unfinished = jobs - await answered(first)
        async with asyncio.timeout(PATIENCE):
            while await answered(first, second) < jobs:  # noqa: ASYNC110 - processes
                await asyncio.sleep(0.5)
        counted = {
            (who, what): await worker.metric(name)
            for who, worker in (("first", first), ("second", second))
            for what, name in COUNTED.items()
        }
    return counted | {("all", "unfinished"): unfinished}


async def measure(bootstrap: str, *, jobs: int, beside: Path | None) -> list[Row]:
    """Take turns."""
    rows = []
    for name, checkout in ({"aril": None} | ({"aril, earlier": beside} if beside else {})).items():
        counted = await once(bootstrap, jobs, checkout)
        rows += [
            Row.of(
                [value],
                question=QUESTION,
                provider=name,
                metric=what,
                x=f"{who} worker" if who != "all" else who,
                unit="1",
                config=f"{jobs} jobs of {TOKENS} tokens, {PARTITIONS} partitions; a worker joins",
            )
            for (who, what), value in counted.items()
        ]
    return rows


async def measure_either(
    bootstrap: str, *, jobs: int, beside: Path | None, standstill: int
) -> list[Row]:
    """Measure what is asked for, beside the rows of what is not."""
    kept = [row for row in read(QUESTION) if row.metric.startswith(METRIC) == (not standstill)]
    if standstill:
        return [*kept, *await standstills(bootstrap, standstill, QUESTION)]
    return [*await measure(bootstrap, jobs=jobs, beside=beside), *kept]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4_000)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--standstill", type=int, default=0, metavar="ROUNDS")
    keep_measured(QUESTION, functools.partial(measure_either, **vars(parser.parse_args())))

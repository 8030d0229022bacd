"""Measure how fast a worker takes over what others left: jobs of one tenant, and of many.

    python -m benchmarks.takeover [--jobs 2000] [--tenants 400] [--beside CHECKOUT]

A real Kafka, and a worker whose engine costs nothing. The jobs are in the log when it starts, so it
claims each and reads its reply log back before it answers: two tokens. Counted from the moment that
it is ready to the last answer. With another checkout of ours its worker does the same in turns, a
round each.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.record import Row
from benchmarks.stack import PACED, Stack, keep_measured

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION: Final = "takeover"
ROUNDS: Final = 5
TOKENS: Final = 2
PATIENCE: Final = 300.0


async def once(bootstrap: str, jobs: int, tenants: int, checkout: Path | None) -> float:
    """Return how many jobs a second one worker has taken over and answered."""
    names = [f"t{number:04}" for number in range(tenants)]
    stack = Stack(bootstrap, partitions=1, reply_partitions=1, tenants=names)
    async with stack:
        await stack.leave_jobs(jobs, TOKENS)
        worker = await stack.add_worker(PACED, "0", checkout=checkout, max_rows=16)
        begun = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            while await worker.metric("aril_jobs_total") < jobs:  # noqa: ASYNC110 - a process
                await asyncio.sleep(0.1)
        return jobs / (time.monotonic() - begun)


async def measure(
    bootstrap: str, *, jobs: int, tenants: int, beside: Path | None, rounds: int = ROUNDS
) -> list[Row]:
    """Take turns."""
    checkouts = {"aril": None} | ({"aril, earlier": beside} if beside else {})
    figures: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for count in (1, tenants):
            for name, checkout in checkouts.items():
                found = await once(bootstrap, jobs, count, checkout)
                figures.setdefault((name, count), []).append(found)
                print(f"{name}, {count} tenants: {found:.0f} jobs/s", flush=True)
    return [row_of(name, count, jobs, found) for (name, count), found in figures.items()]


def row_of(name: str, tenants: int, jobs: int, found: Sequence[float]) -> Row:
    """Make a row of the CSV."""
    return Row.of(
        found,
        question=QUESTION,
        provider=name,
        metric="taken over",
        x=f"{tenants} tenants",
        unit="jobs/s",
        config=f"{jobs} jobs of {TOKENS} tokens, one worker",
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2_000)
    parser.add_argument("--tenants", type=int, default=400)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = vars(parser.parse_args())
    keep_measured(QUESTION, functools.partial(measure, **asked))

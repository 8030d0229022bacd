"""Measure how fast a worker takes over what others left: jobs of one tenant, and of many.

    python -m benchmarks.takeover [--jobs 4000] [--tenants 400] [--beside CHECKOUT]

A real Kafka, and a worker whose engine costs nothing. The jobs are in the log when it starts, so it
claims each and reads its reply log back before it answers: two tokens. Counted from the moment that
it is ready, seldom: each look at its metrics costs it some milliseconds. Once more with torch and
transformers loaded, as a real worker has them. With another checkout of ours its worker does the
same in turns, a round each; one older than `benchmarks.laden_worker` has to be given that.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.record import Row
from benchmarks.stack import PACED, Stack, keep_measured

if TYPE_CHECKING:
    from collections.abc import Sequence

QUESTION: Final = "takeover"
ROUNDS: Final = 5
TOKENS: Final = 2
PATIENCE: Final = 300.0
LOOK_SECONDS: Final = 0.5
LADEN: Final = "benchmarks.laden_worker"


class Case(NamedTuple):
    """Whose jobs are taken over, and by what."""

    tenants: int
    worker: str

    def __str__(self) -> str:
        """Return what the CSV says of it."""
        laden = ", torch loaded" if self.worker == LADEN else ""
        return f"{self.tenants} tenants{laden}"


class Found(NamedTuple):
    """What one worker did."""

    rate: float  # jobs taken over and answered, a second
    pauses: list[float]  # of Python's collector, once the worker was ready; seconds


async def once(bootstrap: str, jobs: int, case: Case, checkout: Path | None) -> Found:
    """Have one worker take jobs over and answer them."""
    names = [f"t{number:04}" for number in range(case.tenants)]
    stack = Stack(bootstrap, partitions=1, reply_partitions=1, tenants=names)
    async with stack:
        await stack.leave_jobs(jobs, TOKENS)
        paused = stack.logs / "pauses"
        module = (case.worker, "0", str(paused))
        worker = await stack.add_worker(*module, checkout=checkout, max_rows=16)
        paused.unlink(missing_ok=True)
        begun, rate = time.monotonic(), 0.0
        async with asyncio.timeout(PATIENCE):
            while (done := await worker.metric("aril_jobs_total")) < jobs or not rate:
                if done:  # the last look before the end counts
                    rate = done / (time.monotonic() - begun)
                await asyncio.sleep(LOOK_SECONDS)
        return Found(rate, [*map(float, paused.read_text().split())] if paused.exists() else [])


async def measure(
    bootstrap: str, *, jobs: int, tenants: int, beside: Path | None, rounds: int = ROUNDS
) -> list[Row]:
    """Take turns."""
    checkouts = {"aril": None} | ({"aril, earlier": beside} if beside else {})
    cases = (Case(1, PACED), Case(tenants, PACED), Case(tenants, LADEN))
    figures: dict[tuple[str, Case], list[Found]] = {}
    for _ in range(rounds):
        for case in cases:
            for name, checkout in checkouts.items():
                found = await once(bootstrap, jobs, case, checkout)
                figures.setdefault((name, case), []).append(found)
                print(f"{name}, {case}: {found.rate:.0f} jobs/s", flush=True)
    return [
        row for (name, case), found in figures.items() for row in rows_of(name, case, jobs, found)
    ]


def rows_of(name: str, case: Case, jobs: int, found: Sequence[Found]) -> list[Row]:
    """Make the CSV's rows of one case."""
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider=name,
        x=str(case),
        config=f"{jobs} jobs of {TOKENS} tokens, one worker",
    )
    rows = [row([each.rate for each in found], metric="taken over", unit="jobs/s")]
    if case.worker == LADEN:
        longest = [1_000 * max(each.pauses, default=0.0) for each in found]
        rows.append(row(longest, metric="garbage, longest pause", unit="ms"))
        shares = [1_000_000 * sum(each.pauses) / jobs for each in found]
        rows.append(row(shares, metric="garbage, a job", unit="us"))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=4_000)
    parser.add_argument("--tenants", type=int, default=400)
    parser.add_argument("--beside", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    asked = vars(parser.parse_args())
    keep_measured(QUESTION, functools.partial(measure, **asked))

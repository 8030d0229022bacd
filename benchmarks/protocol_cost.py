"""Measure what the exactly-once protocol costs while nothing fails.

    python -m benchmarks.protocol_cost    # writes protocol_cost.csv

Two worker processes on one real Kafka, each with its own topics and group: one as it is, one with
the protocol taken out (`benchmarks.plain_worker` says of what). They get the same loads in turns,
in the order with, without, without, with, so that a machine that changes its speed changes both; a
ratio is always that of two neighbours. The reader is the same for both and knows no protocol: it
counts tokens and terminals.

CPU time is the worker process's own, by the kernel's clock for it. It is the less noisy figure,
and the only one that tells anything where the engine's pace decides how many tokens there are.
"""

from __future__ import annotations

import asyncio
import functools
import time
from dataclasses import dataclass
from typing import Literal, Self

import msgpack

from benchmarks.record import Row, ratios
from benchmarks.stack import PACED, Stack, cpu_seconds, keep_measured

QUESTION = "protocol_cost"
PARTITIONS = 8
ROWS = 64
ROUNDS = 10  # of both workers, by one pair of processes
PAIRS = 3  # of processes: where one lies in memory is part of how fast it is
ANSWER_SECONDS = 60.0

Mode = Literal["with", "without"]
MODULES: dict[Mode, str] = {"with": PACED, "without": "benchmarks.plain_worker"}


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
        self._stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=PARTITIONS)
        self._module = MODULES[mode], str(pace)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self._wire = await self._stack.wire()
        self.pid = (await self._stack.add_worker(*self._module, max_rows=ROWS)).pid
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self._stack.__aexit__(*raised)

    async def run(self, load: Load) -> Measured:
        """Send all jobs at once, read until the last terminal."""
        requests = [self._wire.request(number, load.tokens) for number in range(load.jobs)]
        cpu, begun = cpu_seconds(self.pid), time.monotonic()
        for request in requests:
            await self._wire.send(*request)
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._read(load)
        lasted, cpu = time.monotonic() - begun, cpu_seconds(self.pid) - cpu
        tokens = load.jobs * load.tokens
        return Measured(tokens / lasted, cpu / tokens * 1e6)

    async def _read(self, load: Load) -> None:
        tokens = ended = 0
        while ended < load.jobs:
            for value in await self._wire.values():
                fields = msgpack.unpackb(value)
                tokens += len(fields.get("ids", ()))
                ended += fields["kind"] == "done"
        if (tokens, ended) != (load.jobs * load.tokens, load.jobs):
            raise RuntimeError(f"{tokens} tokens and {ended} terminals came for {load}")


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
    rates = {mode: [run.tokens_per_second for run in runs] for mode, runs in found.items()}
    costs = {mode: [run.cpu_per_million for run in runs] for mode, runs in found.items()}
    rows = []
    for mode in found:
        rows.append(row(rates[mode], provider=mode, metric="tokens/s", unit="1/s"))
        rows.append(row(costs[mode], provider=mode, metric="CPU per 1e6 tokens", unit="s"))
    for metric, of in (("ratio of tokens/s", rates), ("ratio of CPU", costs)):
        both = ratios(of["with"], of["without"])
        rows.append(row(both, provider="with / without", metric=metric, unit="1"))
    return rows


async def run_all(bootstrap: str) -> list[Row]:
    """Measure every load."""
    return [row for load in LOADS for row in rows_of(load, await measure(bootstrap, load))]


if __name__ == "__main__":
    keep_measured(QUESTION, run_all)

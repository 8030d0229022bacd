"""Measure what more workers bring, and what coming, going and dying costs the streams.

    python -m benchmarks.scale    # writes scale.csv

A real Kafka, 16 partitions, worker processes whose engine takes a fixed time for each step, a
closed loop of jobs; all on this machine. Scale: tokens a second with 1, 2 and 4 workers. Pauses:
the longest silence of each running stream while a third worker joins two, and while it leaves.
Death: from kill -9 of one of two workers to the next token of its streams, and what the claims
cost that took them over.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aril import Client, TokensEvent
from benchmarks.record import Row
from benchmarks.stack import PACED, Stack, keep_measured

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.workers import WorkerProcess

QUESTION = "scale"
PARTITIONS = 16
REPLY_PARTITIONS = 8
ROWS = 16
PACE = 0.050  # seconds a step
TOKENS = 100
SESSION_SECONDS = 6.0  # the least that a broker allows by default
WARM_SECONDS = 8.0
WINDOW_SECONDS = 15.0
AROUND_SECONDS = 8.0
DEATHS = 5

row = functools.partial(Row.of, question=QUESTION)


@dataclass
class Gap:
    """A silence between two tokens of one stream, by the monotonic clock."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.begun


class Bench(Stack):
    """Workers with sixteen rows each, and a closed loop of jobs."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(bootstrap, partitions=PARTITIONS, reply_partitions=REPLY_PARTITIONS)
        self.tokens = 0
        self.gaps: list[Gap] = []

    async def join(self) -> WorkerProcess:
        """Start one more worker and wait until it has its partitions."""
        return await self.add_worker(
            PACED, str(PACE), max_rows=ROWS, session_timeout_ms=int(SESSION_SECONDS * 1_000)
        )

    async def load(self, streams: int) -> None:
        """Keep so many jobs going until everything ends."""
        clients = await self.held.enter_async_context(self.clients())
        tasks = [
            asyncio.create_task(self._ask_on(clients[number % len(clients)]))
            for number in range(streams)
        ]

        async def stop() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.held.push_async_callback(stop)

    async def _ask_on(self, client: Client) -> None:
        while True:
            before: float | None = None
            async for event in client.stream("x", sampling={"max_tokens": TOKENS}):
                if isinstance(event, TokensEvent):
                    now = time.monotonic()
                    self.tokens += len(event.ids)
                    if before is not None:
                        self.gaps.append(Gap(before, now))
                    before = now

    def silences(self, begun: float, ended: float, least: float = 0.0) -> Iterator[Gap]:
        """Return the gaps that reach into a span of time."""
        return (
            gap
            for gap in self.gaps
            if gap.ended > begun and gap.begun < ended and gap.seconds >= least
        )


async def end(worker: WorkerProcess, number: signal.Signals) -> None:
    """Send a signal and wait for the end."""
    worker.signal(number)
    await worker.wait()


def config(workers: object) -> str:
    """Describe a measurement."""
    return (
        f"{workers} workers of {ROWS} rows, {PACE * 1e3:.0f} ms a step, {PARTITIONS} partitions, "
        f"session time-out {SESSION_SECONDS:.0f} s"
    )


async def measure_scale(bootstrap: str) -> list[Row]:
    """Count tokens with 1, 2 and 4 workers under more jobs than they have rows."""
    rates: dict[int, list[float]] = {}
    for count in (1, 2, 4):
        async with Bench(bootstrap) as bench:
            await asyncio.gather(*(bench.join() for _ in range(count)))
            await bench.load(3 * ROWS * count)
            await asyncio.sleep(WARM_SECONDS)
            rates[count] = []
            for _ in range(3):
                before, begun = bench.tokens, time.monotonic()
                await asyncio.sleep(WINDOW_SECONDS / 3)
                rates[count].append((bench.tokens - before) / (time.monotonic() - begun))
    one = statistics.median(rates[1])
    rows = []
    for count, found in rates.items():
        told: dict[str, Any] = {"provider": "closed loop", "x": count, "config": config(count)}
        rows.append(row(found, metric="tokens/s", unit="1/s", **told))
        share = [rate / (count * one) for rate in found]
        rows.append(row(share, metric="share of linear", unit="1", **told))
    return rows


async def measure_pauses(bootstrap: str) -> list[Row]:
    """Let a third worker join and leave beside two."""
    rows = []
    async with Bench(bootstrap) as bench:
        await asyncio.gather(bench.join(), bench.join())
        await bench.load(2 * ROWS)
        await asyncio.sleep(WARM_SECONDS)
        calm = time.monotonic()
        await asyncio.sleep(AROUND_SECONDS)
        joined = time.monotonic()
        third = await bench.join()
        await asyncio.sleep(AROUND_SECONDS)
        left = time.monotonic()
        await end(third, signal.SIGTERM)
        await asyncio.sleep(AROUND_SECONDS)
        spans = {
            "no change": (calm, joined),
            "a third joins": (joined, left),
            "it leaves": (left, time.monotonic()),
        }
        for name, (begun, ended) in spans.items():
            lengths = sorted(gap.seconds * 1e3 for gap in bench.silences(begun, ended))
            cuts = statistics.quantiles(lengths, n=1_000)
            for metric, value in (
                ("between tokens, p50", cuts[499]),
                ("between tokens, p99", cuts[989]),
                ("between tokens, worst", lengths[-1]),
            ):
                rows.append(
                    row([value], provider=name, metric=metric, x=2, unit="ms", config=config(2))
                )
    return rows


async def measure_deaths(bootstrap: str) -> list[Row]:
    """Kill one of two workers, again and again; a new one takes its place."""
    beyond: list[float] = []
    costs: dict[str, list[float]] = {"claims": [], "records read back": [], "one pass": []}
    for _ in range(DEATHS):
        async with Bench(bootstrap) as bench:
            victim, heir = await asyncio.gather(bench.join(), bench.join())
            await bench.load(ROWS)
            await asyncio.sleep(WARM_SECONDS)
            killed = time.monotonic()
            await end(victim, signal.SIGKILL)
            await asyncio.sleep(SESSION_SECONDS + AROUND_SECONDS)
            gaps = bench.silences(killed, killed + 1, least=SESSION_SECONDS / 2)
            beyond += [gap.ended - killed - SESSION_SECONDS for gap in gaps]
            claims = await heir.metric("aril_claims_total")
            passes = await heir.metric("aril_takeover_seconds_count")
            costs["claims"].append(claims)
            read = await heir.metric("aril_records_read_back_total")
            costs["records read back"].append(read / max(claims, 1))
            spent = await heir.metric("aril_takeover_seconds_sum")
            costs["one pass"].append(spent / max(passes, 1) * 1e3)
    told: dict[str, Any] = {"provider": "kill -9 of one of two", "x": 2, "config": config(2)}
    beyond = [each * 1e3 for each in beyond]
    return [
        row(beyond, metric="next token, beyond the session time-out", unit="ms", **told),
        row([max(beyond)], metric="the same, worst", unit="ms", **told),
        row(costs["claims"], metric="claims", unit="1", **told),
        row(costs["records read back"], metric="records read back a claim", unit="1", **told),
        row(costs["one pass"], metric="one pass of claims", unit="ms", **told),
    ]


async def run_all(bootstrap: str) -> list[Row]:
    """Measure everything."""
    return [
        *await measure_scale(bootstrap),
        *await measure_pauses(bootstrap),
        *await measure_deaths(bootstrap),
    ]


if __name__ == "__main__":
    keep_measured(QUESTION, run_all)

"""Measure what more workers bring, and what coming, going and dying costs the streams.

    python -m benchmarks.scale

A real Kafka, 16 partitions, worker processes whose engine takes a fixed time for each step, a
closed loop of jobs; all on this machine. Scale: tokens a second with 1, 2 and 4 workers. Pauses:
the longest silence of each running stream while a third worker joins two, and while it leaves.
Death: from kill -9 of one of two workers to the next token of its streams, and what the claims
cost that took them over.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import statistics
import subprocess
import sys
import time
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp

from aril import Client, TokensEvent
from aril.broker import free_port
from benchmarks.queue_path import ready
from benchmarks.record import Row, show, write
from tests.support.brokers import running_kafka
from worker.topics.admin import Contract, TopicPlan, ensure_topics

if TYPE_CHECKING:
    from collections.abc import Iterator

QUESTION = "scale"
TENANTS = ("acme", "blackbeard", "ledgerly", "visitor")
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


class BenchWorker:
    """One worker process with the stub engine."""

    def __init__(self, bootstrap: str, contract: Contract, group: str) -> None:
        self.url = f"http://127.0.0.1:{(port := free_port())}"
        settings = {
            "bootstrap": bootstrap,
            "group": group,
            "jobs_topic": contract.jobs_topic,
            "dlq_topic": contract.dlq_topic,
            "replies_prefix": contract.replies_prefix,
            "http": f"127.0.0.1:{port}",
            "max_rows": ROWS,
            "session_timeout_ms": int(SESSION_SECONDS * 1_000),
            "log_level": "error",
        }
        command = [sys.executable, "-m", "benchmarks.queue_path", "--worker", str(PACE)]
        command += [f"{name}={value}" for name, value in settings.items()]
        self.process = subprocess.Popen(command)  # noqa: S603 - our own module

    async def metric(self, name: str) -> float:
        """Return the sum over a metric's series."""
        async with aiohttp.ClientSession() as session, session.get(self.url + "/metrics") as page:
            lines = (await page.text()).splitlines()
        found = [line for line in lines if line.partition("{")[0].split()[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal and wait for the end."""
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait)


@dataclass
class Gap:
    """A silence between two tokens of one stream, by the monotonic clock."""

    begun: float
    ended: float

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.ended - self.begun


@dataclass
class Bench:
    """A cluster's topics, the workers on them and a closed loop of jobs."""

    bootstrap: str
    stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    workers: list[BenchWorker] = field(default_factory=list)
    tokens: int = 0
    gaps: list[Gap] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self.stem = uuid.uuid4().hex[:6]
        self.contract = Contract(
            jobs_topic=f"jobs-{self.stem}",
            dlq_topic=f"dlq-{self.stem}",
            replies_prefix=f"r-{self.stem}.",
        )
        plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=REPLY_PARTITIONS)
        await ensure_topics(self.bootstrap, self.contract, TENANTS, plan)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self.workers:
            if worker.process.poll() is None:
                await worker.end(signal.SIGKILL)
        await self.stack.aclose()

    async def add_worker(self) -> BenchWorker:
        """Start one more and wait until it has its partitions."""
        worker = BenchWorker(self.bootstrap, self.contract, self.stem)
        self.workers.append(worker)
        await ready(f"{worker.url}/readyz")
        return worker

    async def load(self, streams: int) -> None:
        """Keep so many jobs going until everything ends."""
        names: dict[str, Any] = {
            "jobs_topic": self.contract.jobs_topic,
            "replies_prefix": self.contract.replies_prefix,
        }
        clients = [
            await self.stack.enter_async_context(Client(self.bootstrap, tenant, **names))
            for tenant in TENANTS
        ]
        tasks = [
            asyncio.create_task(self._ask_on(clients[number % len(clients)]))
            for number in range(streams)
        ]

        async def stop() -> None:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.stack.push_async_callback(stop)

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
            await asyncio.gather(*(bench.add_worker() for _ in range(count)))
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
        await asyncio.gather(bench.add_worker(), bench.add_worker())
        await bench.load(2 * ROWS)
        await asyncio.sleep(WARM_SECONDS)
        calm = time.monotonic()
        await asyncio.sleep(AROUND_SECONDS)
        joined = time.monotonic()
        third = await bench.add_worker()
        await asyncio.sleep(AROUND_SECONDS)
        left = time.monotonic()
        await third.end()
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
            victim, heir = await asyncio.gather(bench.add_worker(), bench.add_worker())
            await bench.load(ROWS)
            await asyncio.sleep(WARM_SECONDS)
            killed = time.monotonic()
            await victim.end(signal.SIGKILL)
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
    with contextlib.ExitStack() as held:
        kafka = held.enter_context(running_kafka())
        measured = asyncio.run(run_all(kafka.bootstrap))
    show(measured)
    write(QUESTION, measured)

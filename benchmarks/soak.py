"""Measure whether workers grow over hours in which tenants, adapters and workers come and go.

    python -m benchmarks.soak [--seconds 7200]    # writes soak.csv

A real Kafka and two workers with a tiny model and its LoRA, all on this machine. First how many
jobs a second they answer at most; then 70 % of that, at random moments. Tenants stay for some
minutes, each with adapters of its own, and are followed by others; one worker is restarted every
ten minutes, by a drain and by kill -9 in turns, the other one stays. What grows in that one, and in
the process of the clients: resident memory and open descriptors, their slope an hour behind the
first quarter of the time, by least squares. Each answer is counted: lost ones, and such as have
another length than was asked for.

A machine that gets slower meanwhile would be flooded, and a flood is another measurement: while
more jobs are open than are answered in some seconds, none is sent, and that is counted as well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import random
import shutil
import signal
import statistics
import tempfile
import time
import uuid
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from aril import Client, JobFailed, JobTimeout
from aril.worker.topics.admin import TopicPlan, ensure_topics
from benchmarks.record import Row
from benchmarks.stack import Stack, keep_measured
from tests.support.tiny import make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from tests.support.workers import WorkerProcess

NAMED: Final = "soak"  # no QUESTION: `make bench` does not wait hours for it
PARTITIONS: Final = 8
ROWS: Final = 8
LOAD: Final = 0.7
TENANTS: Final = 8  # at a time
ADAPTERS: Final = 2  # of each
STAY_SECONDS: Final = 240.0
RESTART_SECONDS: Final = 600.0
SAMPLE_SECONDS: Final = 20.0
CAPACITY_SECONDS: Final = 20.0
LENGTHS: Final = (8, 64)  # tokens of an answer
ADAPTER_CACHE_BYTES: Final = 1 << 20  # full before what is counted begins
OPEN_SECONDS: Final = 10.0  # of answers: when more jobs are open, the machine does not keep up
PATIENCE: Final = 300.0


class Tenant:
    """One that is there for a while, with its client and adapters."""

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self.client = client
        self.since = time.monotonic()
        self.jobs: set[asyncio.Task[None]] = set()


class Soak:
    """A load that goes on, and what came of it."""

    def __init__(self, stack: Stack, folder: Path, model: Path) -> None:
        self.stack = stack
        self.store = folder
        self.model = model
        self.chance = random.Random(1)
        self.live: deque[Tenant] = deque()
        self.counted: Counter[str] = Counter()
        self.samples: dict[str, list[tuple[float, float]]] = {}
        self._numbers = iter(range(10**6))

    async def come(self) -> None:
        """Let a tenant come: its topic, its adapters, its client."""
        name = f"t{next(self._numbers):05}"
        await ensure_topics(
            self.stack.bootstrap, self.stack.contract, [name], TopicPlan(reply_partitions=2)
        )
        for number in range(ADAPTERS):
            seed = self.chance.randrange(1 << 30)
            path = self.store / name / f"a{number}"
            await asyncio.to_thread(make_tiny_adapter, path, self.model, rank=4, seed=seed)
        client = Client(self.stack.bootstrap, name, **self.stack.names)
        await client.__aenter__()
        self.live.append(Tenant(name, client))
        self.counted["tenants"] += 1

    async def go(self) -> None:
        """Let the oldest go, once it is answered."""
        tenant = self.live.popleft()
        await asyncio.gather(*tenant.jobs)
        await tenant.client.close()
        await asyncio.to_thread(shutil.rmtree, self.store / tenant.name)

    def ask(self) -> asyncio.Task[None]:
        """Send one job of somebody's."""
        tenant = self.chance.choice(self.live)
        task = asyncio.create_task(self._ask(tenant))
        tenant.jobs.add(task)
        task.add_done_callback(tenant.jobs.discard)
        return task

    async def _ask(self, tenant: Tenant) -> None:
        """See that its answer is as long as was asked."""
        tokens = self.chance.randint(*LENGTHS)
        adapter = self.chance.choice([None, *(f"a{number}" for number in range(ADAPTERS))])
        try:
            answer = await tenant.client.complete(
                f"question {self.chance.random()}",
                adapter=adapter,
                sampling={"max_tokens": tokens, "ignore_eos": True},
                job_id=uuid.uuid4().hex,
                timeout=PATIENCE,
            )
        except JobTimeout:
            self.counted["lost"] += 1
        except JobFailed as error:
            self.counted["failed"] += 1
            print(f"failed: {error}")
        else:
            self.counted["jobs"] += 1
            self.counted["altered"] += len(answer.token_ids) != tokens

    async def capacity(self) -> float:
        """Return how many jobs a second are answered where there is always one more."""
        until, before = time.monotonic() + CAPACITY_SECONDS, self.counted["jobs"]

        async def again() -> None:
            while time.monotonic() < until:
                await self.ask()

        await asyncio.gather(*(again() for _ in range(6 * ROWS)))
        return (self.counted["jobs"] - before) / CAPACITY_SECONDS

    async def load(self, a_second: float, until: float) -> None:
        """Send jobs at random moments, so many a second; wait for the last answers."""
        while time.monotonic() < until:
            await asyncio.sleep(self.chance.expovariate(a_second))
            if sum(len(tenant.jobs) for tenant in self.live) < OPEN_SECONDS * a_second:
                self.ask()
            else:
                self.counted["held back"] += 1
        await asyncio.gather(*(job for tenant in self.live for job in tenant.jobs))

    async def change(self, until: float) -> None:
        """Let tenants come and go."""
        while time.monotonic() < until:
            await asyncio.sleep(STAY_SECONDS / TENANTS)
            await self.come()
            await self.go()

    async def sample(self, steady: WorkerProcess, begun: float, until: float) -> None:
        """Note what the steady worker and this process hold."""
        watched = {"worker": psutil.Process(steady.pid), "clients": psutil.Process()}
        while time.monotonic() < until:
            await asyncio.sleep(SAMPLE_SECONDS)
            now = time.monotonic() - begun
            for name, process in watched.items():
                for what, value in (
                    ("memory", process.memory_info().rss / 1e6),
                    ("descriptors", process.num_fds()),
                ):
                    self.samples.setdefault(f"{name}, {what}", []).append((now, value))


async def restart(start: Callable[[], Awaitable[WorkerProcess]], until: float) -> int:
    """Start a worker, and end it every so often; return how often."""
    times = 0
    while time.monotonic() < until:
        worker = await start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(RESTART_SECONDS, until - time.monotonic())):
                await asyncio.Event().wait()
        if time.monotonic() >= until:
            break
        if times % 2:
            worker.signal(signal.SIGKILL)
            await worker.wait()
        else:
            await worker.stop()
        times += 1
    return times


def slope(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the mean, and how much an hour that changes, of all but the first quarter."""
    kept = samples[len(samples) // 4 :]
    times, values = zip(*kept, strict=True)
    line = statistics.linear_regression(times, values)
    return statistics.fmean(values), line.slope * 3_600


async def measure(bootstrap: str, seconds: float) -> list[Row]:
    """Soak for so long."""
    with tempfile.TemporaryDirectory(prefix="aril-soak-") as folder:
        model, store = make_tiny_model(Path(folder) / "model"), Path(folder) / "store"
        store.mkdir()
        stack = Stack(bootstrap, partitions=PARTITIONS, reply_partitions=2, tenants=())
        async with stack:

            async def start() -> WorkerProcess:
                return await stack.add_worker(
                    "aril",
                    "worker",
                    model=model,
                    adapters=store,
                    max_rows=ROWS,
                    kv_tokens=8_192,
                    adapter_cache_bytes=ADAPTER_CACHE_BYTES,
                    session_timeout_ms=6_000,
                )

            steady = await start()
            soak = Soak(stack, store, model)
            for _ in range(TENANTS):
                await soak.come()
            a_second = LOAD * await soak.capacity()
            begun = time.monotonic()
            until = begun + seconds
            *_, restarts = await asyncio.gather(
                soak.load(a_second, until),
                soak.change(until),
                soak.sample(steady, begun, until),
                restart(start, until),
            )
            for tenant in [*soak.live]:
                await tenant.client.close()
    return [*rows_of(soak, seconds, a_second, restarts)]


def rows_of(soak: Soak, seconds: float, a_second: float, restarts: int) -> Iterator[Row]:
    """Make the CSV's rows."""
    row = functools.partial(
        Row.of,
        question=NAMED,
        x=f"{seconds:.0f} s",
        config=f"two workers of {ROWS} rows, tiny model; {a_second:.1f} jobs/s, {LOAD:.0%} of most",
    )
    for name, samples in soak.samples.items():
        mean, change = slope(samples)
        unit = "MB" if "memory" in name else "1"
        yield row([mean], provider=name, metric="mean", unit=unit)
        yield row([change / mean * 100], provider=name, metric="slope of an hour", unit="%")
    for what in ("jobs", "lost", "failed", "altered", "held back", "tenants"):
        yield row([soak.counted[what]], provider="all", metric=what, unit="1")
    yield row([restarts], provider="all", metric="restarts", unit="1")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=7_200)
    keep_measured(NAMED, functools.partial(measure, seconds=parser.parse_args().seconds))

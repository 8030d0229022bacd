"""Measure what a broker's death costs the tenants whose replies are on another one.

    python -m benchmarks.dead_broker    # writes dead_broker.csv

Two real Kafka brokers. Jobs, dead letters, the group's coordinator and two tenants' replies are on
the first; a third tenant's replies are on the second alone. One worker, whose engine takes a fixed
time for each step. All three tenants send jobs at a steady rate, the third one also while nobody
can be told its answers. The second broker is killed and started again, several times. Measured is
the time from the call of the client to the first token, of the other two tenants, by when a job was
sent: in quiet, in the first seconds behind the death, and later while the broker is dead.

Until an append or a read has timed out nobody knows that the broker is dead, and rows of the third
tenant run on: therefore the first seconds are kept apart. It fails if any job of the other two is
not answered.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import statistics
import tempfile
import time
from collections import defaultdict
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aril import Client, TokensEvent
from aril.worker.topics.admin import TopicPlan
from benchmarks.record import Row, keep, ratios
from benchmarks.stack import PACED, Stack
from tests.support.two_brokers import place_topics, two_brokers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from benchmarks.stack import Wire
    from tests.support.fault_broker import SecondKafka
    from tests.support.workers import WorkerProcess

QUESTION = "dead_broker"
OTHERS: Final = ("acme", "blackbeard")
AWAY: Final = "visitor"
PARTITIONS = 8
ROWS = 16
PACE = 0.020  # seconds a step
TOKENS = 10
AWAY_TOKENS = 60
APART_SECONDS = 0.2  # between two jobs of a tenant: the third has six rows busy, the others two
WARM_SECONDS = 10.0
QUIET_SECONDS = 30.0
FIRST_SECONDS = 20.0  # behind a death: an append is given up after 15
DEAD_SECONDS = 30.0
TURNS = 3
ANSWER_SECONDS = 120.0
QUIET, FIRST, DEAD = "quiet", "first 20 s", "dead"
STATES = (QUIET, FIRST, DEAD)

row = functools.partial(Row.of, question=QUESTION, provider="aril")

Times = dict[tuple[str, int], list[float]]
"""Seconds to the first tokens, by state and turn."""


class Bench(Stack):
    """One worker, three tenants, and the state that the second broker is in."""

    def __init__(self, bootstrap: str) -> None:
        super().__init__(
            bootstrap,
            partitions=PARTITIONS,
            reply_partitions=PARTITIONS,
            tenants=(*OTHERS, AWAY),
        )
        self.state: tuple[str, int] | None = None  # not to be counted
        self.times: Times = defaultdict(list)
        self.parked = 0.0  # the most jobs that stood aside at a look
        self._asked: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """Send jobs of all tenants while this lasts; in the end wait for the others' answers."""
        wire = await self.wire()
        async with asyncio.TaskGroup() as tasks:
            sending = [
                tasks.create_task(_steadily(functools.partial(self._send, wire))),
            ]
            for tenant in OTHERS:
                client = Client(self.bootstrap, tenant, **self.names)
                await self.held.enter_async_context(client)
                ask = functools.partial(self._ask_one, client)
                sending.append(tasks.create_task(_steadily(ask)))
            yield
            for each in sending:
                each.cancel()
        await asyncio.gather(*self._asked)

    def _ask_one(self, client: Client) -> None:
        task = asyncio.create_task(self._ask(client, self.state))
        self._asked.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None:  # what failed is raised in the end
            self._asked.discard(task)

    async def _ask(self, client: Client, state: tuple[str, int] | None) -> None:
        begun, first = time.perf_counter(), 0.0
        sampling = {"max_tokens": TOKENS, "ignore_eos": True}
        async for event in client.stream("x", sampling=sampling, timeout=ANSWER_SECONDS):
            if isinstance(event, TokensEvent) and not first:
                first = time.perf_counter() - begun
        if state is not None:
            self.times[state].append(first)

    def _send(self, wire: Wire) -> None:
        job, value = wire.request(len(OTHERS), AWAY_TOKENS)
        task = asyncio.create_task(wire.send(job, value))
        self._asked.add(task)
        task.add_done_callback(self._forget)

    async def turn(self, number: int, second: SecondKafka, worker: WorkerProcess) -> None:
        """Measure in quiet, kill the second broker, measure, and have it back."""
        await self._measure(QUIET, number, QUIET_SECONDS)
        await second.kill()
        await self._measure(FIRST, number, FIRST_SECONDS)
        await self._measure(DEAD, number, DEAD_SECONDS)
        self.parked = max(self.parked, await worker.metric("aril_parked_jobs"))
        await second.revive()
        while await _waiting(worker):  # noqa: ASYNC110 - a process's state
            await asyncio.sleep(0.2)
        await asyncio.sleep(WARM_SECONDS)

    async def _measure(self, state: str, turn: int, seconds: float) -> None:
        self.state = (state, turn)
        await asyncio.sleep(seconds)
        self.state = None


async def _waiting(worker: WorkerProcess) -> float:
    """Return how many jobs stand aside or wait for their turn."""
    return await worker.metric("aril_parked_jobs") + await worker.metric("aril_backlog_jobs")


async def _steadily(send: Callable[[], None]) -> None:
    """Send a job at each moment that is due, however long answers take."""
    begun = time.monotonic()
    for number in itertools.count(1):
        send()
        await asyncio.sleep(max(0.0, begun + number * APART_SECONDS - time.monotonic()))


async def measure() -> list[Row]:
    """Run all turns."""
    with tempfile.TemporaryDirectory(prefix="aril-brokers-", ignore_cleanup_errors=True) as folder:
        async with two_brokers(Path(folder)) as (first, second):
            bench = Bench(first.bootstrap)
            plan = TopicPlan(jobs_partitions=PARTITIONS, reply_partitions=PARTITIONS)
            await place_topics(first.bootstrap, bench.contract, bench.tenants, plan, away=AWAY)
            async with bench:
                worker = await bench.add_worker(PACED, str(PACE), max_rows=ROWS)
                async with bench.load():
                    await asyncio.sleep(WARM_SECONDS)
                    for number in range(TURNS):
                        await bench.turn(number, second, worker)
                if not bench.parked:
                    raise RuntimeError("no job stood aside: the broker's death was not noticed")
                return rows(bench.times)


def rows(times: Mapping[tuple[str, int], Sequence[float]]) -> list[Row]:
    """Return p50 and p99 of each state, over all and by turns, and the ratios to quiet."""
    config = (
        f"2 brokers, 1 worker of {ROWS} rows, {PACE * 1e3:.0f} ms a step, 3 tenants with "
        f"{1 / APART_SECONDS:.0f} jobs/s each, of {TOKENS} tokens, the third's of {AWAY_TOKENS}; "
        f"{TURNS} turns"
    )
    found: list[Row] = []
    tails: dict[str, list[float]] = {}
    for state in STATES:
        by_turn = [1e3 * each for turn in range(TURNS) for each in times[state, turn]]
        tails[state] = [p99([1e3 * each for each in times[state, turn]]) for turn in range(TURNS)]
        about = functools.partial(row, x=state, config=config)
        found += [
            about(by_turn, metric="first token", unit="ms"),
            about([p99(by_turn)], metric="first token, p99", unit="ms"),
            about(tails[state], metric="first token, p99 of a turn", unit="ms"),
            about([max(by_turn)], metric="first token, slowest", unit="ms"),
            about([len(by_turn)], metric="first tokens", unit="times"),
        ]
    whole = {each.x: each.p50 for each in found if each.metric == "first token, p99"}
    for state in (FIRST, DEAD):
        about = functools.partial(row, x=state, config=config, unit="ratio")
        found += [
            about([whole[state] / whole[QUIET]], metric="p99 to quiet"),
            about(ratios(tails[state], tails[QUIET]), metric="p99 to quiet, by turns"),
        ]
    return found


def p99(times: Sequence[float]) -> float:
    """Return the 99th percentile."""
    return statistics.quantiles(times, n=100, method="inclusive")[98]


if __name__ == "__main__":
    keep(QUESTION, asyncio.run(measure()))

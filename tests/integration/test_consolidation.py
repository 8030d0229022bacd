"""A group that consolidates: few workers are filled, the others stand by, and no stream notices."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from aril import DoneEvent, ResetEvent, TokensEvent
from tests.integration.conftest import TENANTS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from aril import Client
    from tests.integration.conftest import Site
    from tests.support.workers import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(280)]

PACE = 0.05  # seconds a step
TOKENS = 60
ROWS = 8
PARTITIONS = 8
SETTLE_SECONDS = 90.0


def paced(site: Site, name: str, **settings: object) -> WorkerProcess:
    """Return a worker of the site's group that consolidates, as often as the setting allows."""
    told = {"assignor": "consolidate", "rebalance_seconds": 2, "max_rows": ROWS} | settings
    worker = site.worker(name, **told)
    worker.module = ("tests.support.paced_worker", str(PACE))
    return worker


class Load:
    """Closed loops of jobs: each stream is checked as it comes."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients
        self._number = itertools.count()
        self.answered = 0
        self.resets = 0
        self.pauses = [0.0]  # the longest of each stream, seconds

    @asynccontextmanager
    async def streams(self, count: int) -> AsyncIterator[None]:
        """Keep so many going; in the end they finish what they began."""
        ending = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            for number in range(count):
                tasks.create_task(self._ask_on(self._clients[number % len(self._clients)], ending))
            try:
                yield
            finally:
                ending.set()

    async def _ask_on(self, client: Client, ending: asyncio.Event) -> None:
        while not ending.is_set():
            stamps: list[int] = []
            ends = 0
            async for event in client.stream(
                "x",
                job_id=f"job-{next(self._number)}",
                sampling={"max_tokens": TOKENS},
                timeout=120,
            ):
                if isinstance(event, TokensEvent):
                    stamps += map(int, event.text.split())
                self.resets += isinstance(event, ResetEvent)
                ends += isinstance(event, DoneEvent)
            # A token's text is when it was made: none twice, none missing, each after the last.
            assert len(stamps) == TOKENS
            assert stamps == sorted(set(stamps))
            assert ends == 1
            self.answered += 1
            self.pauses.append(max(b - a for a, b in itertools.pairwise(stamps)) / 1e9)


async def until(condition: Callable[[], Awaitable[Any]], seconds: float = 30) -> Any:
    """Wait for something that must come true; return it."""
    async with asyncio.timeout(seconds):
        while not (found := await condition()):  # noqa: ASYNC110 - other processes' state
            await asyncio.sleep(0.2)
    return found


async def partitions(workers: Sequence[WorkerProcess]) -> list[int]:
    """Return how many partitions each holds, the most first."""
    held = [int(await each.metric("aril_partitions")) for each in workers]
    return sorted(held, reverse=True)


async def until_held(
    workers: Sequence[WorkerProcess], *, least_open: int, most_open: int
) -> list[int]:
    """Wait until all partitions are held, by a number of workers within these bounds."""

    async def settled() -> list[int] | None:
        held = await partitions(workers)
        opened = sum(each > 0 for each in held)
        return held if sum(held) == PARTITIONS and least_open <= opened <= most_open else None

    return await until(settled, SETTLE_SECONDS)


async def total(workers: Sequence[WorkerProcess], name: str) -> float:
    """Return the sum of a metric over workers."""
    return sum([await each.metric(name) for each in workers])


def events(worker: WorkerProcess) -> Counter[str]:
    """Return what a worker logged, by name."""
    return Counter(json.loads(line)["event"] for line in worker.log.read_text().splitlines())


@pytest.mark.slow
async def test_few_workers_are_open_and_streams_do_not_notice(site: Site) -> None:
    """Low load closes two of three, more opens a second, a standby's removal disturbs nobody."""
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(paced(site, name)) for name in ("one", "two", "three")
        ]
        clients = [await stack.enter_async_context(site.client(tenant)) for tenant in TENANTS]
        load = Load(clients)
        async with load.streams(2):
            assert await until_held(workers, least_open=1, most_open=1) == [PARTITIONS, 0, 0]
            assert await total(workers, "aril_standby") == 2
            assert {await each.metric("aril_workers_open") for each in workers} == {1}
            claims = await total(workers, "aril_claims_total")
            async with load.streams(10):
                await until_held(workers, least_open=2, most_open=3)
                assert await total(workers, "aril_rebalances_asked_total") >= 1

                # What moved was running: its new owner went on with it.
                async def claimed() -> bool:
                    return await total(workers, "aril_claims_total") > claims

                await until(claimed)
            await until_held(workers, least_open=1, most_open=1)
            await asyncio.sleep(1)

            names = ("aril_claims_total", "aril_partitions_gained_total", "aril_releases_total")
            before = [await total(workers, name) for name in names]
            spare, _ = [each for each in workers if await each.metric("aril_standby")]
            rest = [each for each in workers if each is not spare]
            went = [await spare.metric(name) for name in names]
            placed = sum(events(each)["partitions_assigned"] for each in rest)
            assert await spare.stop() == 0

            async def rebalanced() -> bool:  # by its leaving; then streams begin and end as ever
                return sum(events(each)["partitions_assigned"] for each in rest) >= placed + 2

            await until(rebalanced)
            wanted = load.answered + 4

            async def answered() -> bool:
                return load.answered >= wanted

            await until(answered)
            after = [await total(rest, name) for name in names]
            assert [a + w - b for a, w, b in zip(after, went, before, strict=True)] == [0, 0, 0]
            assert await partitions(rest) == [PARTITIONS, 0]
        asked = sum(events(each)["rebalance_asked"] for each in workers)
        print(f"{load.answered} jobs, {asked} rebalances, longest pause {max(load.pauses):.3f} s")
    assert load.resets == 0


async def test_a_mixed_group_is_told_of_in_one_line(site: Site) -> None:
    """The worker that comes with another assignor ends with code 1 and names the setting."""
    async with paced(site, "one") as one:
        other = paced(site, "two", assignor="sticky")
        async with other.started():
            assert await other.wait() == 1
        assert "has workers with another ARIL_ASSIGNOR" in other.log.read_text()
        assert await one.metric("aril_partitions") == PARTITIONS

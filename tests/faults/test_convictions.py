"""Who ends in `crash_loop`: a job that kills its worker, and nobody beside it."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from aril import Client
from aril.errors import JobFailed
from tests.support.fault_content import text_of
from tests.support.fault_fleet import Fleet
from tests.support.fault_load import TENANTS
from tests.support.fault_topics import site_on

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.brokers import Kafka
    from tests.support.fault_fleet import FaultSite

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(400)]

KILLER = "killer"
NEIGHBOURS = 15
NEIGHBOUR_TOKENS = 250  # five seconds: deaths come in their midst
QUEUED = 5_000
QUEUED_TOKENS = 8
RESTARTS = 10


@pytest.fixture
async def site(kafka: Kafka, tmp_path: Path) -> FaultSite:
    """Create topics of its own for a test."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker rebalances for seconds")
    return await site_on(kafka.bootstrap, tmp_path)


async def ask(client: Client, job: str, tokens: int) -> str:
    """Return how a job ended; a whole answer has to be its own."""
    sampling = {"max_tokens": tokens, "ignore_eos": True}
    stream = client.stream("?", job_id=job, sampling=sampling, timeout=300)
    try:
        answer = await stream.result()
    except JobFailed as error:
        return error.code.value
    assert answer.text == text_of(client.tenant, job, 0, tokens)
    assert answer.resets == 0
    return "done"


def client_of(site: FaultSite, tenant: str) -> Client:
    """Return a tenant's client."""
    contract = site.contract
    return Client(
        site.bootstrap,
        tenant,
        jobs_topic=contract.jobs_topic,
        replies_prefix=contract.replies_prefix,
    )


async def replace_the_dead(fleet: Fleet, deaths: Counter[str]) -> None:
    """Start a worker for each that has died, until cancelled."""
    while True:
        for worker in [*fleet.steady]:
            if worker.exit_code is not None:
                fleet.steady.remove(worker)
                deaths["killed"] += 1
                fleet.steady.append(fleet.new())
        await asyncio.sleep(0.1)


@pytest.mark.parametrize("way", ["FAULT_KILLER", "FAULT_RAISER"])
async def test_a_killer_convicts_only_itself(site: FaultSite, way: str) -> None:
    """Fifteen long answers beside it: all are whole, however often their worker dies.

    By a signal, or because the engine's step raises: what it ran is not released.
    """
    fleet, deaths = Fleet(site, {way: KILLER}), Counter[str]()
    await fleet.grow(1)
    guard = asyncio.create_task(replace_the_dead(fleet, deaths))
    try:
        async with client_of(site, TENANTS[0]) as client:
            ends = await asyncio.gather(
                ask(client, KILLER, 10),
                *(ask(client, f"job-{n}", NEIGHBOUR_TOKENS) for n in range(NEIGHBOURS)),
            )
    finally:
        guard.cancel()
        await asyncio.gather(guard, return_exceptions=True)
        await fleet.close()
    print(f"{deaths['killed']} workers died")
    assert ends == ["crash_loop", *["done"] * NEIGHBOURS]
    assert 3 <= deaths["killed"] <= 8
    told = deaths["killed"] if way == "FAULT_RAISER" else 0  # a step that raises is logged
    assert len(fleet.failed) == told
    assert all("logged an exception" in each for each in fleet.failed)


async def test_rolling_restarts_convict_nobody(site: FaultSite) -> None:
    """Five thousand queued jobs, ten times every worker replaced: each is answered once."""
    fleet = Fleet(site, {"FAULT_PACE": "0.05"})
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fleet.close)
        clients = [await stack.enter_async_context(client_of(site, each)) for each in TENANTS]
        asking = [
            asyncio.create_task(ask(clients[n % len(clients)], f"job-{n}", QUEUED_TOKENS))
            for n in range(QUEUED)
        ]
        waiting = []
        for _ in range(RESTARTS):
            await fleet.grow(3)
            waiting.append(sum(not task.done() for task in asking))
            for worker in [*fleet.steady]:
                fleet.steady.append(fleet.new())
                await fleet.drain(worker)
        await fleet.grow(3)
        ends = Counter(await asyncio.gather(*asking))
    print(f"jobs unanswered at each restart: {waiting}; {dict(fleet.events)}")
    assert ends == {"done": QUEUED}
    assert waiting[0] == QUEUED
    assert fleet.events["job_suspected"] == 0
    assert fleet.failed == []

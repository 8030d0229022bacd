"""Two brokers, one tenant's replies on the one that dies: the other tenant does not notice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import pytest

from aril import Client
from aril.worker.topics.admin import Contract, TopicPlan
from tests.support.brokers import choice
from tests.support.group_protocols import by_either_protocol
from tests.support.two_brokers import place_topics, two_brokers
from tests.support.workers import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.fault_broker import FirstKafka, SecondKafka

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(280)]

CONTRACT: Final = Contract()
TENANTS: Final = ("acme", "zeta")
PLAN: Final = TopicPlan(jobs_partitions=1, reply_partitions=1)
JOBS: Final = 12
STEP_SECONDS: Final = "0.02"


@pytest.fixture
async def brokers(tmp_path: Path) -> AsyncIterator[tuple[FirstKafka, SecondKafka]]:
    """Run two brokers with the topics placed."""
    if choice().kind != "apache":
        pytest.skip("needs two brokers of our own: make jars, Java 17")
    async with two_brokers(tmp_path) as (first, second):
        await place_topics(first.bootstrap, CONTRACT, TENANTS, PLAN, away="acme")
        yield first, second


async def ask(client: Client, name: str, tokens: int) -> list[int]:
    """Return the tokens of one answer, however long it takes."""
    sampling = {"max_tokens": tokens, "ignore_eos": True}
    answer = await client.complete("hello", job_id=name, sampling=sampling, timeout=240)
    assert answer.resets == 0
    return list(answer.token_ids)


@by_either_protocol
async def test_the_other_tenant_is_answered_and_the_first_one_in_the_end(
    brokers: tuple[FirstKafka, SecondKafka], tmp_path: Path, group_protocol: str
) -> None:
    """While a reply broker is gone its tenant's jobs wait, and only they; then each goes on."""
    first, second = brokers
    worker = WorkerProcess(
        "w", tmp_path, bootstrap=first.bootstrap, group_protocol=group_protocol, max_rows=4
    )
    worker.module = ("tests.support.paced_worker", STEP_SECONDS)
    async with (
        worker,
        Client(first.bootstrap, "acme") as acme,
        Client(first.bootstrap, "zeta") as zeta,
    ):
        asked = [asyncio.create_task(ask(acme, f"a{number}", 60)) for number in range(JOBS)]
        await asyncio.sleep(2)
        await second.kill()
        for number in range(JOBS):
            assert len(await ask(zeta, f"z{number}", 10)) == 10
        while not await worker.metric("aril_parked_jobs"):  # noqa: ASYNC110 - a process's state
            await asyncio.sleep(0.1)
        assert len(await ask(zeta, "z-last", 10)) == 10
        assert await worker.metric("aril_reply_logs_down") == 1.0
        assert any(not each.done() for each in asked)
        await second.revive()
        answers = await asyncio.gather(*asked)
        assert {len(tokens) for tokens in answers} == {60}
        assert await worker.metric("aril_unexpected_events_total") == 0.0

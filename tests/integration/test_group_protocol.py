"""Workers whose group is one of KIP-848: jobs are answered while workers come, go and die."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from aril import Completion
    from tests.integration.conftest import Site
    from tests.support.workers import WorkerProcess

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.parametrize("group_protocol", ["consumer"]),
]

TOKENS = 100  # at twenty a second


def worker_of(site: Site, name: str) -> WorkerProcess:
    """Return a worker without a model."""
    worker = site.worker(name, max_rows=32)
    worker.module = ("tests.support.paced_worker", "0.05")
    return worker


async def test_streams_are_whole_while_workers_come_go_and_die(site: Site) -> None:
    """One alone, a second that joins and is killed, a third, and the first leaves."""
    async with site.client("acme") as client, worker_of(site, "first") as first:

        async def ask(number: int) -> Completion:
            return await client.complete(
                f"job {number}", sampling={"max_tokens": TOKENS, "ignore_eos": True}, timeout=200
            )

        asked = [asyncio.create_task(ask(number)) for number in range(12)]
        async with worker_of(site, "second") as second:
            await _holds(second)
            asked += [asyncio.create_task(ask(number)) for number in range(12, 24)]
            await asyncio.sleep(1)
            second.signal(signal.SIGKILL)
            async with worker_of(site, "third") as third:
                await _holds(third)
                assert await first.stop() == 0
                answers = await asyncio.gather(*asked)
    assert {(len(answer.token_ids), answer.resets) for answer in answers} == {(TOKENS, 0)}


async def _holds(worker: WorkerProcess) -> None:
    async with asyncio.timeout(60):
        while not await worker.metric("aril_partitions"):  # noqa: ASYNC110 - a process's state
            await asyncio.sleep(0.1)

"""Workers whose group is one of KIP-848: jobs are answered while workers come, go and die."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import pytest

from aril.schemas import DoneEvent

if TYPE_CHECKING:
    from aril import Stream
    from aril.schemas import Event
    from tests.integration.conftest import Site
    from tests.support.workers import WorkerProcess

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

TOKENS = 100  # at twenty a second


def worker_of(site: Site, name: str) -> WorkerProcess:
    """Return a worker without a model."""
    if site.kafka.kind == "embedded":
        pytest.skip("the embedded broker has no KIP-848")
    worker = site.worker(name, group_protocol="consumer", max_rows=32)
    worker.module = ("tests.support.paced_worker", "0.05")
    return worker


async def test_streams_are_whole_while_workers_come_go_and_die(site: Site) -> None:
    """One alone, a second that joins and is killed, a third, and the first leaves."""
    async with site.client("acme") as client, worker_of(site, "first") as first:
        streams = [await client.send(f"job {each}", max_tokens=TOKENS) for each in range(12)]
        answers = asyncio.gather(*(_read(stream) for stream in streams))
        async with worker_of(site, "second") as second:
            await _holds(second)
            streams = [await client.send(f"more {each}", max_tokens=TOKENS) for each in range(12)]
            more = asyncio.gather(*(_read(stream) for stream in streams))
            await asyncio.sleep(1)
            second.signal(signal.SIGKILL)
            async with worker_of(site, "third") as third:
                await _holds(third)
                assert await first.stop() == 0
                ends = [*await answers, *await more]
    assert [type(end) for end in ends] == [DoneEvent] * 24
    logs = await site.logs("acme")
    assert len(logs) == 24


async def _read(stream: Stream) -> Event | None:
    last = None
    async for event in stream:
        last = event
    return last


async def _holds(worker: WorkerProcess) -> None:
    async with asyncio.timeout(60):
        while not await worker.metric("aril_partitions"):  # noqa: ASYNC110 - a process's state
            await asyncio.sleep(0.1)

"""Probes: answered from the start, honest about what is missing, and metrics beside them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import aiohttp
import pytest

from aril.worker.observe.health import STALE_HEARTBEAT_SECONDS, Health, start_http
from aril.worker.observe.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def served() -> AsyncIterator[tuple[Health, Metrics, str]]:
    """Serve probes on a free port."""
    health, metrics = Health(), Metrics()
    runner = await start_http(("127.0.0.1", 0), health, metrics)
    host, port = runner.addresses[0][:2]
    yield health, metrics, f"http://{host}:{port}"
    await runner.cleanup()


async def get(url: str) -> tuple[int, str]:
    """Fetch a page."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()


async def test_readiness_names_what_it_waits_for(served: tuple[Health, Metrics, str]) -> None:
    """Not ready before the last part is; the body says which are missing and why."""
    health, _, url = served
    status, body = await get(f"{url}/readyz")
    assert status == 503
    assert all(part in body for part in ("model", "topics", "group"))
    health.is_ready("model")
    health.is_ready("group")
    health.not_ready("topics", "jobs: does not exist")
    status, body = await get(f"{url}/readyz")
    assert (status, "jobs: does not exist" in body, "model" in body) == (503, True, False)
    health.is_ready("topics")
    assert (await get(f"{url}/readyz"))[0] == 200
    health.draining()
    assert await get(f"{url}/readyz") == (503, '{"status": "unavailable", "worker": "draining"}')


async def test_liveness_is_not_readiness(served: tuple[Health, Metrics, str]) -> None:
    """Alive while loading; dead only when the engine's heartbeat stops."""
    health, _, url = served
    assert (await get(f"{url}/livez"))[0] == 200
    age = 0.0
    health.watch_engine(lambda: age)
    assert (await get(f"{url}/livez"))[0] == 200
    age = STALE_HEARTBEAT_SECONDS + 1
    status, body = await get(f"{url}/livez")
    assert status == 503
    assert "no step ended" in body


async def test_metrics_are_prometheus_or_openmetrics(served: tuple[Health, Metrics, str]) -> None:
    """Whichever is asked for; plain text is what everybody reads."""
    _, metrics, url = served
    metrics.jobs.labels(end="stop").inc()
    status, body = await get(f"{url}/metrics")
    assert status == 200
    assert 'aril_jobs_total{end="stop"} 1.0' in body
    assert not body.endswith("# EOF\n")
    accept = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/metrics", headers=accept) as response,
    ):
        assert response.content_type == "application/openmetrics-text"
        assert (await response.text()).endswith("# EOF\n")


async def test_ready_and_draining_are_metrics(served: tuple[Health, Metrics, str]) -> None:
    """As the probes have it at that moment."""
    health, _, url = served
    _, body = await get(f"{url}/metrics")
    assert "\naril_ready 0.0\n" in body
    for part in ("model", "topics", "group"):
        health.is_ready(part)
    _, body = await get(f"{url}/metrics")
    assert "\naril_ready 1.0\n" in body
    assert "\naril_draining 0.0\n" in body
    health.draining()
    _, body = await get(f"{url}/metrics")
    assert "\naril_ready 0.0\n" in body
    assert "\naril_draining 1.0\n" in body


async def test_a_page_is_had_while_all_threads_of_the_loop_wait(
    served: tuple[Health, Metrics, str],
) -> None:
    """An adapter store that hangs holds them; that is when somebody looks."""
    _, _, url = served
    gate = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    hanging = asyncio.create_task(asyncio.to_thread(gate.wait))
    try:
        async with asyncio.timeout(30):
            assert (await get(f"{url}/metrics"))[0] == 200
        assert not hanging.done()
    finally:
        gate.set()
        await hanging

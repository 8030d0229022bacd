"""A broker in memory, a worker that the test plays, a gateway over both."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aril.gateway.stored import runner
from aril.memory import MemoryBroker
from tests.aril.conftest import aril, cluster  # noqa: F401 - fixtures
from tests.support.gateway_site import PARTITIONS, Gateway, Worker
from tests.support.gateway_stand import Stand, standing
from tests.support.remembering_worker import RememberingWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.support.brokers import Kafka


@pytest.fixture
def broker() -> MemoryBroker:
    """Return a broker with one reply topic."""
    return MemoryBroker(reply_partitions=PARTITIONS)


@pytest.fixture
def worker(broker: MemoryBroker) -> Worker:
    """Return a worker that does nothing by itself."""
    return Worker(broker)


@pytest.fixture
async def serving(worker: Worker) -> AsyncIterator[Worker]:
    """Let it answer each job with its own words."""
    task = asyncio.create_task(worker.serve())
    yield worker
    task.cancel()
    await asyncio.wait({task})


@pytest.fixture
async def gateway(broker: MemoryBroker) -> AsyncIterator[Gateway]:
    """Run a gateway whose only tenant is acme."""
    async with Gateway(broker).running() as gateway:
        yield gateway


@pytest.fixture(scope="session")
def stand(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Run a worker with a tiny model, and a gateway, on a real broker."""
    with standing(kafka, tmp_path_factory.mktemp("stand")) as stand:
        yield stand


@pytest.fixture
def batch_settings(tmp_path: Path) -> dict[str, Any]:
    """Return settings of a gateway that keeps files."""
    return {"gateway_batches": tmp_path / "kept", "gateway_model": "tiny"}


@pytest.fixture
async def working(
    broker: MemoryBroker, batch_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """Run a gateway that keeps files, and looks often."""
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.05)
    async with Gateway(broker, **batch_settings).running() as gateway:
        yield gateway


@pytest.fixture
async def answering(broker: MemoryBroker) -> AsyncIterator[RememberingWorker]:
    """Run a worker that answers each prompt."""
    async with RememberingWorker(broker) as worker:
        yield worker

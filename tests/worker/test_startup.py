"""The way up: what cannot be cured by waiting ends it, whatever else is waited for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aril.broker import free_port
from worker.app import Worker
from worker.loading import ModelError, RoomError
from worker.observe.health import Health
from worker.observe.metrics import Metrics
from worker.settings import load_settings
from worker.startup import Startup, WorkerFailedError
from worker.topics.contract import Contract
from worker.topics.tenant_topics import TenantTopics

if TYPE_CHECKING:
    from worker.loading import Loaded
    from worker.settings import WorkerSettings


async def test_a_wrong_model_is_told_while_no_broker_answers() -> None:
    """The wait for brokers has no end of its own: the model's error ends it."""
    settings = load_settings(flags={"bootstrap": f"127.0.0.1:{free_port()}"}).settings

    def load(_: WorkerSettings) -> Loaded:
        raise ModelError("model: the checkpoint lacks lm_head.weight")

    topics = TenantTopics(Contract.of(settings), Metrics())
    startup = Startup(settings, "worker", Health(), topics)
    with pytest.raises(WorkerFailedError, match=r"the checkpoint lacks lm_head\.weight"):
        await asyncio.wait_for(startup.run(load), 30)


@pytest.mark.parametrize(("error", "code"), [(RoomError, 2), (ModelError, 1)])
async def test_exit_codes(error: type[ModelError], code: int) -> None:
    """A setting that asks for more memory than there is ends the worker as any bad setting does."""
    address = f"127.0.0.1:{free_port()}"
    settings = load_settings(flags={"bootstrap": address, "http": "off"}).settings

    def load(_: WorkerSettings) -> Loaded:
        raise error("one line")

    assert await asyncio.wait_for(Worker(settings, load=load).run(), 30) == code

"""The end of a worker's tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiokafka.client import AIOKafkaClient

from aril.worker.app import cancel_all

if TYPE_CHECKING:
    import pytest


async def test_a_task_whose_cancellation_was_lost_ends_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As one that closes a client of aiokafka's when it is cancelled, and looks again later."""
    monkeypatch.setattr("aril.worker.app.AGAIN_SECONDS", 0.01)
    client: Any = AIOKafkaClient(bootstrap_servers="127.0.0.1:1")
    client._sync_task = asyncio.create_task(asyncio.Event().wait())
    went_on = False

    async def watch() -> None:
        nonlocal went_on
        await client.close()
        went_on = True
        await asyncio.Event().wait()

    task = asyncio.create_task(watch())
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await cancel_all([task])
    assert went_on
    assert task.cancelled()

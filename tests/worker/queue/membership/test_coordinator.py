"""The group's coordinator, asked through a stand-in for aiokafka's client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aril.worker.queue.commits import send_commit
from aril.worker.queue.membership.coordinator import Coordinator

if TYPE_CHECKING:
    import pytest


class Client:
    """Two brokers: the group moves from the first, which halts, to the second."""

    def __init__(self) -> None:
        self.coordinator = 1
        self.asked: list[int] = []

    async def coordinator_lookup(self, *_: object) -> int:
        """Tell who it is now."""
        return self.coordinator

    async def send(self, node: int, *_: object, **__: object) -> Any:
        """Answer nothing, as the first; refuse the connection, as the second."""
        self.asked.append(node)
        if node == 1:
            await asyncio.Event().wait()
        raise ConnectionError


async def test_a_coordinator_that_does_not_answer_is_looked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its connection stays open while it halts: no error would ever tell of it."""
    monkeypatch.setattr("aril.worker.queue.commits.COMMIT_TIMEOUT_SECONDS", 0.01)
    client = Client()
    coordinator = Coordinator(client, "group")
    assert not await send_commit(None, coordinator.send, coordinator.forget)
    client.coordinator = 2
    assert not await send_commit(None, coordinator.send, coordinator.forget)
    assert client.asked == [1, 2]

"""Where answers go: one question a topic at a time, whatever number of jobs waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiokafka.errors import KafkaConnectionError

from aril.worker.replies.pending_bytes import PendingBytes
from aril.worker.replies.routes import ReplyRoutes
from aril.worker.stages import Event
from tests.support.entries import entry_of
from tests.support.members import until

if TYPE_CHECKING:
    import pytest

    from aril.worker.job import Entry
    from aril.worker.replies.producer import LogWriter

JOBS = 200


class Directory:
    """Counts what it is asked. The topic comes into being when it is created."""

    def __init__(self) -> None:
        self.asked = self.created = 0
        self.partitions_of: int | None = None
        self.failures = 0

    def known_partitions(self, topic: str) -> int | None:  # noqa: ARG002 - the interface
        """Know nothing before it was asked."""
        return None

    async def partitions(self, topic: str) -> int | None:  # noqa: ARG002 - the interface
        """Take a moment."""
        self.asked += 1
        await asyncio.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise KafkaConnectionError
        return self.partitions_of

    def forget_missing(self, topic: str) -> None:
        """Nothing is remembered."""

    async def create(self, tenant: str) -> None:  # noqa: ARG002 - the interface
        """Take longer."""
        self.created += 1
        await asyncio.sleep(0.02)
        self.partitions_of = 8


def routes_of(directory: Directory, told: list[tuple[str, Event]]) -> ReplyRoutes:
    """Return routes that tell what happened to each job."""

    def happened(entry: Entry, event: Event) -> None:
        told.append((entry.job_id, event))

    writer = cast("LogWriter", directory)
    return ReplyRoutes(
        writer, pending=PendingBytes(1 << 30), create=directory.create, happened=happened
    )


async def test_many_jobs_of_a_new_tenant_are_one_look_up_and_one_creation() -> None:
    """Two hundred of them had been four hundred look-ups and two hundred admin clients."""
    directory, told = Directory(), list[tuple[str, Event]]()
    routes = routes_of(directory, told)
    for number in range(JOBS):
        routes.look_up(entry_of(f"j{number}", offset=number))
    await until(lambda: len(told) == JOBS)
    assert (directory.asked, directory.created) == (2, 1)
    assert {event for _, event in told} == {Event.ROUTED}


async def test_a_look_up_that_fails_is_repeated_for_all_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A broker that is gone for a moment costs a moment, and nobody is told twice."""
    monkeypatch.setattr("aril.worker.replies.routes.RETRY_SECONDS", 0.0)
    directory, told = Directory(), list[tuple[str, Event]]()
    directory.partitions_of, directory.failures = 4, 3
    routes = routes_of(directory, told)
    for number in range(JOBS):
        routes.look_up(entry_of(f"j{number}", offset=number))
    await until(lambda: len(told) == JOBS)
    assert directory.asked == 4
    assert len(set(told)) == JOBS

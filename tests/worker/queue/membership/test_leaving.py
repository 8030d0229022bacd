"""A member whose broker has fallen silent: its goodbye is given up, and it leaves all the same."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog.testing

from aril.worker.queue.membership.librdkafka import DaemonThreads
from tests.support.fault_proxy import FaultProxy
from tests.support.group_protocols import by_either_protocol, require_protocol
from tests.support.members import PARTITIONS, Member, send, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from tests.support.brokers import Kafka

pytestmark = pytest.mark.kafka

SESSION_MS = 6_000  # as the test broker's own by KIP-848


def tasks_of_aiokafka(before: Iterable[asyncio.Task[Any]]) -> set[str]:
    """Return what aiokafka does beside us, and did not before."""
    coroutines: list[Any] = [each.get_coro() for each in asyncio.all_tasks().difference(before)]
    return {each.__name__ for each in coroutines if "aiokafka" in each.cr_code.co_filename}


@pytest.fixture
async def proxy(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FaultProxy]:
    """Let what goes to the broker be held back; nobody waits for long."""
    monkeypatch.setattr("aril.worker.queue.membership.leaving.LEAVE_SECONDS", 0.05)
    monkeypatch.setattr("aril.worker.queue.commits.COMMIT_TIMEOUT_SECONDS", 0.2)
    async with FaultProxy(int(kafka.bootstrap.rpartition(":")[2])) as made:
        yield made


@pytest.fixture
async def member(kafka: Kafka, topic: str, group_protocol: str, proxy: FaultProxy) -> Member:
    """Make a member behind the proxy."""
    require_protocol(kafka, group_protocol)
    flags: dict[str, Any] = {"group_protocol": group_protocol}
    if group_protocol == "classic":
        flags["session_timeout_ms"] = SESSION_MS
    return Member(replace(kafka, bootstrap=proxy.bootstrap), topic, **flags)


@by_either_protocol
async def test_a_goodbye_that_nobody_answers_is_given_up(member: Member, proxy: FaultProxy) -> None:
    """The member ends all the same."""
    with structlog.testing.capture_logs() as logs:
        async with member:
            await until(lambda: len(member.consumer.states) == PARTITIONS)
            proxy.hold("up", "down")
    assert "group_not_left" in {each["event"] for each in logs}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("group_protocol", ["classic"])
async def test_nothing_speaks_for_a_classic_member_that_has_ended(
    member: Member, proxy: FaultProxy, known: bool
) -> None:
    """Also where the coordinator was still looked for: a heartbeat would hold its partitions."""
    before = asyncio.all_tasks()
    async with member:
        await until(lambda: len(member.consumer.states) == PARTITIONS)
        assert "_heartbeat_routine" in tasks_of_aiokafka(before)
        proxy.hold("up", "down")
        if not known:
            member.consumer._consumer._coordinator.coordinator_dead()
            await asyncio.sleep(0)
    assert tasks_of_aiokafka(before) == set()


@pytest.mark.parametrize("group_protocol", ["classic"])
async def test_a_start_that_is_broken_off_does_not_wait_for_the_others(
    kafka: Kafka, topic: str, member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A join is answered once all members have handed on, and one of them may take its time."""
    async with Member(kafka, topic) as other:
        await until(lambda: len(other.consumer.states) == PARTITIONS)
        asked, handed_on = asyncio.Event(), asyncio.Event()

        async def taken(*_: object, **__: object) -> None:
            asked.set()
            await handed_on.wait()

        monkeypatch.setattr(other.consumer, "taken", taken)
        with structlog.testing.capture_logs() as logs:
            starting = asyncio.create_task(member.consumer.start())
            await asked.wait()
            starting.cancel()
            await asyncio.wait({starting})
        assert "group_not_left" in {each["event"] for each in logs}
        handed_on.set()


@by_either_protocol
async def test_a_member_that_could_not_leave_is_replaced(
    kafka: Kafka, topic: str, member: Member, proxy: FaultProxy
) -> None:
    """The new one gets the partitions and keeps them, whatever the old one tells as it ends."""
    async with member:
        await until(lambda: len(member.consumer.states) == PARTITIONS)
        with structlog.testing.capture_logs() as logs:
            proxy.hold("up", "down")
            replacing = asyncio.create_task(member.consumer.replace())
            await until(lambda: "group_not_left" in {each["event"] for each in logs})
            proxy.heal()
            await replacing
        await until(lambda: len(member.consumer.states) == PARTITIONS)
        states = member.consumer.states
        await send(kafka, topic, 8)
        await until(lambda: len(member.seen.records) == 8)
        assert member.consumer.states == states


def test_a_call_that_hangs_holds_up_no_exit() -> None:
    """A process waits for the threads of any other executor when it ends."""
    program = (
        "import threading, time\n"
        "from aril.worker.queue.membership.librdkafka import DaemonThreads\n"
        "begun = threading.Event()\n"
        "DaemonThreads().submit(lambda: (begun.set(), time.sleep(3_600)))\n"
        "begun.wait()\n"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


async def test_a_call_brings_what_it_returns_or_raises() -> None:
    """As from any executor."""
    loop, threads = asyncio.get_running_loop(), DaemonThreads()
    assert await loop.run_in_executor(threads, divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await loop.run_in_executor(threads, divmod, 7, 0)

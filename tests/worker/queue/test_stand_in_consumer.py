"""The consumer around a stand-in for aiokafka's: what no broker does when it is asked to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError

from aril.worker.job import Asked
from aril.worker.queue.assignment import Membership
from aril.worker.queue.commits import Commits
from aril.worker.queue.committed import Positions, positions_of
from aril.worker.queue.consumer import JobsConsumer
from aril.worker.queue.ledger import Checkpoint
from aril.worker.settings import load_settings
from tests.support.members import Recorder, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PLACE = TopicPartition("jobs", 0)


def records(first: int, last: int) -> dict[TopicPartition, list[Any]]:
    """Return what a poll brings: the offsets [first, last)."""
    more: dict[str, Any] = {"timestamp": 0, "key": b"k", "value": b"v", "headers": ()}
    return {PLACE: [SimpleNamespace(offset=offset, **more) for offset in range(first, last)]}


class StandIn:
    """Assigned at once; polls bring what the test lays out, and what it still has as it stops."""

    def __init__(self) -> None:
        self.batch: dict[TopicPartition, list[Any]] = {}
        self.leftover: dict[TopicPartition, list[Any]] = {}
        self.stopped = False
        self.closed = False
        self.listener: Any = None

    def subscribe(self, *, topics: list[str], listener: Any) -> None:  # noqa: ARG002
        """Remember who listens."""
        self.listener = listener

    _client = None  # nobody is asked
    _coordinator = None  # there is no group to leave

    def assignment(self) -> set[TopicPartition]:
        """Return the one partition."""
        return {PLACE}

    def paused(self) -> set[TopicPartition]:
        """Return none."""
        return set()

    async def start(self) -> None:
        """Win the partition."""
        assert self.listener is not None
        await self.listener.on_partitions_assigned([PLACE])

    async def stop(self) -> None:
        """Leave, while what was fetched still comes in; once, as aiokafka's."""
        if self.stopped:
            return
        self.stopped = True
        self.batch = self.leftover
        await asyncio.sleep(0.03)
        self.closed = True

    async def getmany(self, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:  # noqa: ARG002
        """Bring what was laid out."""
        while not self.batch and not self.closed:  # noqa: ASYNC110 - the test lays it out
            await asyncio.sleep(0.005)
        batch, self.batch = self.batch, {}
        return batch


class Scene:
    """One member of a group of stand-ins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[StandIn] = []
        self.found: Positions | None = Positions({PLACE: 200}, {PLACE: Checkpoint(50, "7:")})
        self.rejoined = 0

        def make(*_: object) -> StandIn:
            self.made.append(StandIn())
            return self.made[-1]

        async def look(*_: object) -> None:
            pass

        def rejoin(_: object) -> None:
            self.rejoined += 1

        async def positions(*_: object) -> Positions | None:
            return self.found

        consumer, classic = "aril.worker.queue.consumer.", "aril.worker.queue.membership.classic."
        monkeypatch.setattr(consumer + "positions_of", positions)
        monkeypatch.setattr(consumer + "end_before_unreadable", lambda *_: None)
        monkeypatch.setattr(classic + "make_member", make)
        monkeypatch.setattr(classic + "membership_of", lambda _, n: Membership(n, n, "m"))
        monkeypatch.setattr(classic + "look_before_joining", look)
        monkeypatch.setattr(classic + "refuse_mixed_group", look)
        monkeypatch.setattr(classic + "OFFSETS_PAUSE_SECONDS", 0.0)
        monkeypatch.setattr(classic + "ask_for_rebalance", rejoin)
        self.seen = Recorder()
        settings = load_settings().settings
        self.consumer = JobsConsumer(settings, self.seen, "test", Commits())

    @property
    def listener(self) -> Any:
        """Who is told of rebalances."""
        return self.made[-1].listener


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Run a member until the test ends."""
    made = Scene(monkeypatch)

    async def accept(*told: Any) -> Any:
        return told[-1].keys()

    monkeypatch.setattr("aril.worker.queue.membership.classic.commit_offsets", accept)
    await made.consumer.start()
    running = asyncio.create_task(made.consumer.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_worker_that_stops_joins_with_no_other_consumer(scene: Scene) -> None:
    """It would stay in the group until its session ended: nobody stops it."""
    replacing = asyncio.create_task(scene.consumer.replace())
    await asyncio.sleep(0)
    await scene.consumer.stop()
    assert [each.closed for each in scene.made] == [True]
    await replacing
    assert len(scene.made) == 1


async def test_what_a_replaced_consumer_brings_is_not_the_new_ones(scene: Scene) -> None:
    """Its records would count as read there, and all below them as finished though unanswered."""
    scene.made[0].batch = records(50, 100)
    await until(lambda: len(scene.seen.records) == 50)
    scene.made[0].leftover = records(100, 110)
    await scene.consumer.replace()
    await asyncio.sleep(0.05)
    assert len(scene.seen.records) == 50
    scene.made[1].batch = records(50, 110)
    await until(lambda: len(scene.seen.records) == 50 + 60)
    (state,) = scene.consumer.states
    assert state.position == 50


async def test_what_comes_while_an_assignment_is_set_up_belongs_to_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropped it would be lost: the consumer is past it, and what is past counts as finished."""
    asked = asyncio.Event()

    async def slow(*_: object) -> Positions | None:
        await asked.wait()
        return scene.found

    monkeypatch.setattr("aril.worker.queue.consumer.positions_of", slow)
    await scene.listener.on_partitions_revoked([PLACE])
    setting_up = asyncio.create_task(scene.listener.on_partitions_assigned([PLACE]))
    await asyncio.sleep(0.01)
    scene.made[0].batch = records(50, 60)
    await asyncio.sleep(0.03)
    assert scene.seen.records == []
    asked.set()
    await setting_up
    await until(lambda: len(scene.seen.records) == 10)


async def test_an_assignment_whose_offsets_are_unknown_is_not_begun(scene: Scene) -> None:
    """No job is read and nothing committed, so no base of epochs is written away; it rejoins."""
    scene.found, known = None, scene.found
    await scene.listener.on_partitions_revoked([PLACE])
    await scene.listener.on_partitions_assigned([PLACE])
    assert (scene.rejoined, scene.consumer.states) == (1, [])
    scene.made[0].batch = records(50, 60)
    await asyncio.sleep(0.03)
    assert scene.seen.records == []
    await scene.consumer.commit()
    scene.found = known
    await scene.listener.on_partitions_assigned([PLACE])
    scene.made[0].batch = records(50, 60)
    await until(lambda: len(scene.seen.records) == 10)
    (state,) = scene.consumer.states
    assert state.base == 7


@pytest.mark.parametrize("failure", [TimeoutError(), KafkaConnectionError()])
async def test_offsets_that_no_broker_tells_are_unknown(
    failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not empty: an empty commit is a partition that nobody has begun."""

    async def fail(*_: object) -> Any:
        raise failure

    monkeypatch.setattr("aril.worker.queue.committed.log_bounds", fail)
    silent: Any = SimpleNamespace(_client=None)
    assert await positions_of(silent, [PLACE], fail) is None
    assert await positions_of(silent, [], fail) == Positions({})


async def test_all_partitions_that_are_held_share_what_is_remembered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a hundred partitions as with one; those that were held before count no more."""
    monkeypatch.setattr(scene.consumer._finished_jobs, "_of_all", 8)
    places = [TopicPartition("jobs", number) for number in range(4)]
    scene.found = Positions(dict.fromkeys(places, 0))
    for held, each_has in ((places, 2), (places[:2], 4)):
        await scene.listener.on_partitions_revoked(places)
        await scene.listener.on_partitions_assigned(held)
        for state in scene.consumer.states:
            for number in range(20):
                state.finished_jobs.add("acme", f"j{number}", Asked(b"", None, None))
        remembered = [len(state.finished_jobs) for state in scene.consumer.states]
        assert remembered == [each_has] * len(held)

"""The member of KIP-848 around a stand-in for librdkafka: what no broker does when asked to."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import TopicPartition

from aril.worker.queue.membership.consumer import ConsumerMember
from aril.worker.queue.membership.interface import GroupProtocolError
from aril.worker.settings import load_settings
from tests.support.members import until
from tests.worker.queue.membership.test_metadata import told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence
    from concurrent.futures import Executor

    from aril.worker.queue.assignment import Membership

ZERO, ONE = TopicPartition("jobs", 0), TopicPartition("jobs", 1)


class Librdkafka:
    """Tells of what the test says that the brokers did; notes what is asked of it."""

    def __init__(self, _: dict[str, Any], *, executor: Executor) -> None:  # noqa: ARG002
        self.epoch = -1
        self.calls: list[str] = []
        self.message: Any = None
        self.callbacks: dict[str, Any] = {}

    async def subscribe(self, topics: list[str], **callbacks: Any) -> None:
        """Note who is to be told."""
        self.calls.append(f"subscribe {topics}")
        self.callbacks = callbacks

    async def tell(self, what: str, *places: TopicPartition) -> None:
        """Tell of partitions, as from within a poll."""
        await self.callbacks[what](self, [SimpleNamespace(**each._asdict()) for each in places])

    async def poll(self, _: float) -> Any:
        """Bring what the test laid out."""
        await asyncio.sleep(0.005)
        message, self.message = self.message, None
        return message

    async def consumer_group_metadata(self) -> bytes:
        """Tell who we are."""
        return told("aril", "m", self.epoch)

    def __getattr__(self, name: str) -> Any:
        async def note(*_: object) -> None:
            self.calls.append(name)

        return note


class Reader:
    """Stands for aiokafka's consumer, and the positions that it has."""

    _client = None

    def __init__(self) -> None:
        self.positions: dict[TopicPartition, int] = {}
        self.stopped = False

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Note it."""
        self.stopped = True

    @property
    def _subscription(self) -> Any:
        def state(where: TopicPartition) -> Any:
            return SimpleNamespace(has_valid_position=True, position=self.positions[where])

        assignment = SimpleNamespace(state_value=state)
        return SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))

    def assign(self, places: Sequence[TopicPartition]) -> None:
        """Forget all positions, as aiokafka does."""
        self.positions = dict.fromkeys(places, -1)

    def seek(self, where: TopicPartition, offset: int) -> None:
        """Go on from there."""
        self.positions[where] = offset


class Holder:
    """Notes what it is told, and sets up what it is given unless the test says otherwise."""

    resting = False

    def __init__(self) -> None:
        self.told: list[tuple[object, ...]] = []
        self.knows = True
        self.failed: Exception | None = None
        self.member: ConsumerMember | None = None

    async def given(self, partitions: Sequence[TopicPartition], membership: Membership) -> bool:
        """Note them, and begin."""
        self.told.append(("given", *partitions, membership.generation))
        if self.knows and partitions:
            assert self.member is not None
            self.member.begin(dict.fromkeys(partitions, 10))
        return self.knows

    async def taken(self, partitions: Iterable[TopicPartition], *, lost: bool = False) -> None:
        """Note them."""
        self.told.append(("lost" if lost else "taken", *partitions))

    def resume(self) -> None:
        """Do nothing."""

    def fail(self, error: Exception) -> None:
        """Note it."""
        self.failed = error


class Scene:
    """A member that has been started."""

    def __init__(self, member: ConsumerMember, holder: Holder) -> None:
        self.member, self.holder = member, holder

    @property
    def kafka(self) -> Librdkafka:
        """The stand-in."""
        found: Any = self.member._member
        return found

    @property
    def reads(self) -> dict[TopicPartition, int]:
        """What is read, and how far."""
        reader: Any = self.member.reader
        return dict(reader.positions)

    async def give(self, epoch: int, *places: TopicPartition) -> None:
        """Assign partitions in an epoch."""
        self.kafka.epoch = epoch
        await self.kafka.tell("on_assign", *places)


@pytest.fixture
async def scene(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Scene]:
    """Start a member; stop it when the test ends."""

    async def look(*_: object) -> None:
        pass

    module = "aril.worker.queue.membership.consumer."
    monkeypatch.setattr(module + "AIOConsumer", Librdkafka)
    monkeypatch.setattr(module + "make_member", lambda *_: Reader())
    monkeypatch.setattr(module + "look_before_joining", look)
    monkeypatch.setattr(module + "refuse_mixed_group", look)
    monkeypatch.setattr(module + "OFFSETS_PAUSE_SECONDS", 0.01)
    settings = load_settings(flags={"group_protocol": "consumer"}).settings
    made = Scene(ConsumerMember(settings, "test"), Holder())
    made.holder.member = made.member
    await made.member.start(made.holder)
    yield made
    await made.member.stop()


async def test_partitions_keep_the_epoch_that_they_came_in(scene: Scene) -> None:
    """A commit goes out in the present one; what is read on keeps its place."""
    await scene.give(3, ZERO)
    await until(lambda: scene.reads)
    reader: Any = scene.member.reader
    reader.positions[ZERO] = 17
    await scene.give(5, ONE)
    await until(lambda: len(scene.reads) == 2)
    assert scene.reads == {ZERO: 17, ONE: 10}
    assert [each for each in scene.holder.told if each[0] == "given" and len(each) > 2] == [
        ("given", ZERO, 3),
        ("given", ONE, 5),
    ]
    old = scene.member._held[ZERO]
    assert (old.generation, scene.member.as_whom(old).generation) == (3, 5)
    assert scene.kafka.calls.count("pause") == 2


async def test_partitions_go_before_it_is_acknowledged_that_they_do(scene: Scene) -> None:
    """Then what is left is all there is."""
    await scene.give(1, ZERO, ONE)
    await until(lambda: len(scene.reads) == 2)
    scene.kafka.calls.clear()
    at: list[int] = []
    taken = scene.holder.taken

    async def noting(partitions: Iterable[TopicPartition], *, lost: bool = False) -> None:
        at.append(len(scene.kafka.calls))
        await taken(partitions, lost=lost)

    scene.holder.taken = noting  # type: ignore[method-assign]
    await scene.kafka.tell("on_revoke", ONE)
    assert (at, scene.kafka.calls) == ([0], ["incremental_unassign"])
    assert scene.holder.told[-2:] == [("taken", ONE), ("given", 1)]
    assert scene.reads == {ZERO: 10}


async def test_lost_partitions_are_told_as_lost(scene: Scene) -> None:
    """Nothing may be committed of them."""
    await scene.give(1, ZERO)
    await until(lambda: scene.reads)
    await scene.kafka.tell("on_lost", ZERO)
    assert ("lost", ZERO) in scene.holder.told
    assert scene.reads == {}


async def test_offsets_that_nobody_tells_are_asked_for_again_while_it_is_ours(
    scene: Scene,
) -> None:
    """A partition that goes meanwhile is not begun; one that stays is."""
    scene.holder.knows = False
    await scene.give(1, ZERO, ONE)
    await until(lambda: scene.holder.told.count(("given", ZERO, ONE, 1)) > 1)
    await scene.kafka.tell("on_revoke", ONE)
    scene.holder.knows = True
    await until(lambda: scene.reads)
    await asyncio.sleep(0.05)
    assert scene.reads == {ZERO: 10}


async def test_a_second_assignment_in_one_epoch_is_not_begun(scene: Scene) -> None:
    """Its claims could not be told from those of the first: the member leaves and comes back."""
    await scene.give(4, ZERO)
    await until(lambda: scene.reads)
    await scene.kafka.tell("on_lost", ZERO)
    scene.kafka.calls.clear()
    await scene.give(4, ZERO)
    await until(lambda: "unsubscribe" in scene.kafka.calls)
    assert scene.reads == {}
    await scene.give(6, ZERO)
    await until(lambda: scene.reads)


async def test_a_membership_that_is_lost_already_begins_nothing(scene: Scene) -> None:
    """Nor is anything committed in it."""
    await scene.give(-1, ZERO)
    await asyncio.sleep(0.05)
    assert scene.reads == {}
    assert not await scene.member.commit(scene.member._now, {})


async def test_a_member_without_a_partition_has_joined(scene: Scene) -> None:
    """It stands by: brokers that have no partition for it say nothing more."""
    await asyncio.sleep(0.05)
    assert scene.holder.told == []
    scene.kafka.epoch = 2
    await until(lambda: scene.holder.told == [("given", 2)])


@pytest.mark.parametrize("fatal", [True, False])
async def test_an_error_that_is_fatal_ends_the_membership(scene: Scene, fatal: bool) -> None:
    """Any other is librdkafka's to get over."""
    error = SimpleNamespace(fatal=lambda: fatal, str=lambda: "why", name=lambda: "NAME")
    scene.kafka.message = SimpleNamespace(error=lambda: error)
    await until(lambda: scene.kafka.message is None)
    await asyncio.sleep(0.05)
    assert isinstance(scene.holder.failed, GroupProtocolError) is fatal


async def test_an_assignment_that_comes_as_it_closes_is_not_begun(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where librdkafka has left before it tells of it, it knows of no membership any more."""
    kafka, reader = scene.kafka, scene.member.reader

    async def close() -> None:
        async def unknown() -> bytes:
            raise RuntimeError("Consumer group metadata not available")

        monkeypatch.setattr(kafka, "consumer_group_metadata", unknown)
        await kafka.tell("on_assign", ZERO)
        await kafka.tell("on_revoke", ZERO)

    monkeypatch.setattr(kafka, "close", close, raising=False)
    await scene.give(3, ONE)
    await until(lambda: scene.reads)
    await scene.member.stop()
    assert ("taken", ZERO) in scene.holder.told
    assert not any(each[0] == "given" and ZERO in each for each in scene.holder.told)
    assert scene.member.generation < 1
    assert reader.stopped


async def test_what_librdkafka_tells_once_its_close_was_given_up_is_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By then another member may have these partitions."""
    monkeypatch.setattr("aril.worker.queue.membership.leaving.LEAVE_SECONDS", 0.0)
    kafka, answered, closed = scene.kafka, asyncio.Event(), asyncio.Event()

    async def close() -> None:
        await answered.wait()
        await kafka.tell("on_revoke", ZERO)
        await kafka.tell("on_lost", ONE)
        closed.set()

    monkeypatch.setattr(kafka, "close", close, raising=False)
    await scene.give(3, ZERO, ONE)
    await until(lambda: len(scene.reads) == 2)
    await scene.member.stop()
    answered.set()
    await closed.wait()
    assert not {"taken", "lost"} & {each[0] for each in scene.holder.told}


async def test_the_reader_stops_though_librdkafka_does_not_close(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connections and tasks would be left."""

    async def close() -> None:
        raise RuntimeError("why")

    monkeypatch.setattr(scene.kafka, "close", close, raising=False)
    with pytest.raises(RuntimeError, match="why"):
        await scene.member.stop()
    assert scene.member.reader.stopped

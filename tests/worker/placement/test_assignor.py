"""The assignor between aiokafka's real classes: what goes in, what comes out, what it leans on."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING

import pytest
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer import group_coordinator
from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import InconsistentGroupProtocolError
from aiokafka.protocol.metadata import MetadataResponse_v1
from prometheus_client import generate_latest

from aril.worker.job import Partition
from aril.worker.observe.metrics import Metrics
from aril.worker.placement.assignor import ask_for_rebalance, assign, make_assignor
from aril.worker.placement.consolidation import Consolidation
from aril.worker.placement.load_meter import Sample
from aril.worker.placement.load_report import Notice, Report, decode_report, encode_report
from aril.worker.placement.plan import PartitionLoad
from aril.worker.queue.commits import Commits
from aril.worker.queue.consumer import JobsConsumer
from aril.worker.settings import load_settings
from tests.support.members import PARTITIONS, Member, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiokafka.coordinator.protocol import (
        ConsumerProtocolMemberAssignment,
        ConsumerProtocolMemberMetadata,
    )

    from tests.support.brokers import Kafka


def cluster(**topics: int) -> ClusterMetadata:
    """Return aiokafka's metadata of topics with so many partitions."""
    metadata = ClusterMetadata()
    metadata.update_metadata(
        MetadataResponse_v1(
            [(0, "broker", 9092, None)],
            0,
            [
                (0, name, False, [(0, number, 0, [0], [0]) for number in range(count)])
                for name, count in topics.items()
            ],
        )
    )
    return metadata


def nobody(*_: object) -> None:
    """Make nothing of an assignment."""


def over_the_wire(
    user_data: bytes | None, topics: Sequence[str] = ("jobs",)
) -> ConsumerProtocolMemberMetadata:
    """Return a member's metadata as the leader decodes it."""
    metadata = make_assignor(lambda: user_data or b"", nobody).metadata(set(topics))
    return ConsumerProtocol.METADATA.decode(metadata.encode())


def placed(
    assignment: ConsumerProtocolMemberAssignment,
) -> tuple[list[Partition], Notice | None]:
    """Return what a member makes of its assignment, once that went over the wire."""
    got: list[tuple[list[Partition], Notice | None]] = []
    decoded = ConsumerProtocol.ASSIGNMENT.decode(assignment.encode())
    assignor = make_assignor(bytes, lambda partitions, told: got.append((list(partitions), told)))
    assignor.on_assignment(decoded)
    return got[0]


def report(*numbers: int, load: float = 2.0, asked: bool = False) -> bytes:
    """Return the report of a member that holds partitions of `jobs`."""
    held = {Partition("jobs", each): PartitionLoad(load) for each in numbers}
    return encode_report(Report(sequence=1, rows=16, generation=3, held=held, asked=asked))


def test_reports_go_in_and_partitions_and_notices_come_out() -> None:
    """Two of three are emptied, in one plan; each is told of the whole and of its own."""
    members = {
        "a": over_the_wire(report(0, 1, load=1)),
        "b": over_the_wire(report(2, 3, load=2.5, asked=True)),
        "c": over_the_wire(report(4, 5, load=1)),
    }
    out = {name: placed(each) for name, each in assign(cluster(jobs=6), members).items()}
    every = [Partition("jobs", number) for number in range(6)]
    assert {name: partitions for name, (partitions, _) in out.items()} == {
        "a": [],
        "b": every,
        "c": [],
    }
    loads = (1.0, 1.0, 2.5, 2.5, 1.0, 1.0)
    told = Notice(open=1, standby=2, load=9.0, rows=16, asked=True)
    assert out["a"][1] == told
    assert out["b"][1] == Notice(1, 2, 9.0, 16, asked=True, closes=True, loads=loads)


@pytest.mark.parametrize("noise", [None, b"", b"\0", b"sticky's user data", report(0)[:-1]])
def test_a_member_without_a_readable_report_takes_part(noise: bytes | None) -> None:
    """Nothing known of it: what the others hold stays, what nobody holds is placed."""
    members = {"a": over_the_wire(report(0, 1)), "b": over_the_wire(noise)}
    out = assign(cluster(jobs=3), members)
    assert {each: placed(out[each])[0] for each in out} == {
        "a": [Partition("jobs", number) for number in range(3)],
        "b": [],
    }


def test_each_member_gets_topics_that_it_subscribed_to() -> None:
    """Members may know different topics for a moment, as a new one is noticed by one first."""
    members = {
        "a": over_the_wire(report(0), ["jobs", "jobs.new"]),
        "b": over_the_wire(report(1, 2, load=8), ["jobs"]),
    }
    out = {
        name: placed(each)[0]
        for name, each in assign(cluster(**{"jobs": 3, "jobs.new": 2, "other": 1}), members).items()
    }
    assert {each.topic for each in out["b"]} == {"jobs"}
    assert {Partition("jobs.new", 0), Partition("jobs.new", 1)} <= set(out["a"])
    assert len(out["a"]) + len(out["b"]) == 5


def test_a_topic_without_metadata_is_left_out() -> None:
    """It was deleted, or the leader has not heard of it yet."""
    out = assign(cluster(jobs=1), {"a": over_the_wire(report(0), ["jobs", "jobs.gone"])})
    assert placed(out["a"])[0] == [Partition("jobs", 0)]


def consolidation(**flags: object) -> tuple[Consolidation, Metrics]:
    """Return one member's part, with its metrics."""
    settings = load_settings(flags={"assignor": "consolidate", "max_rows": 16} | flags).settings
    metrics = Metrics()
    return Consolidation(settings, metrics), metrics


def told(part: Consolidation, generation: int = -1, *, draining: bool = False) -> Report:
    """Return what a member reports in a generation of the group."""
    decoded = decode_report(part.report(generation, draining=draining))
    assert decoded is not None
    return decoded


def test_a_report_says_what_was_had_and_in_which_generation() -> None:
    """The generation of the assignment; less once membership was lost; each report differs."""
    part, _ = consolidation()
    first = told(part)
    assert (first.generation, first.held, first.rows) == (-1, {}, 16)
    part.on_assignment([Partition("jobs", 0)], Notice(1, 0, 3.0, 16, loads=(3.0,)), 4)
    assert told(part, 5).generation == 4  # it joined and has no assignment yet
    report = told(part, -1)  # it was thrown out
    assert report.generation == -1
    assert report.held == {Partition("jobs", 0): PartitionLoad(3.0)}
    assert report.sequence > first.sequence
    assert told(part, draining=True).draining


def test_a_full_worker_rejoins_once_and_says_so_until_it_is_assigned() -> None:
    """A rebalance may take several requests to join: each says who asked."""
    part, metrics = consolidation()
    source, other = Partition("jobs", 0), Partition("jobs", 1)
    notice = Notice(1, 1, 16.0, 16, loads=(8.0, 8.0))
    part.on_assignment([source, other], notice, 1)
    full = Sample({source: 12, other: 12}, [])
    assert sum(part.look(full, 1e9 + second, draining=False) for second in range(20)) == 1
    assert (told(part).asked, told(part).asked) == (True, True)
    part.on_assignment([source], Notice(2, 0, 24.0, 32, asked=True, loads=(12.0,)), 2)
    assert not told(part).asked
    page = generate_latest(metrics.registry).decode()
    for line in (
        'aril_rebalances_asked_total{why="open"} 1.0',
        "aril_workers_open 2.0",
        "aril_workers_standby 0.0",
        "aril_partitions_gained_total 2.0",
        "aril_load_rows 24.0",
    ):
        assert line in page


def test_a_draining_worker_asks_for_nothing() -> None:
    """It leaves in a moment: that is a rebalance anyway."""
    part, _ = consolidation()
    source, other = Partition("jobs", 0), Partition("jobs", 1)
    part.on_assignment([source, other], Notice(1, 1, 16.0, 16, loads=(8.0, 8.0)), 1)
    full = Sample({source: 12, other: 12}, [])
    assert not any(part.look(full, 1e9 + second, draining=True) for second in range(60))


def test_aiokafka_still_asks_as_we_answer() -> None:
    """The private method, and the order of calls in a rebalance that `Consolidation` leans on."""
    request_rejoin = group_coordinator.GroupCoordinator.request_rejoin
    assert list(inspect.signature(request_rejoin).parameters) == ["self"]
    join = inspect.getsource(group_coordinator.CoordinatorGroupRebalance.perform_group_join)
    assert "assignor.metadata(topics)" in join
    complete = inspect.getsource(group_coordinator.GroupCoordinator._on_join_complete)
    assert complete.index("assignor.on_assignment(") < complete.index("on_partitions_assigned(")


class Joined(Member):
    """A running consumer of a group that consolidates."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        flags = {"bootstrap": kafka.bootstrap, "assignor": "consolidate", "max_rows": 16}
        self.part = Consolidation(load_settings(flags=flags).settings, Metrics())
        super().__init__(kafka, topic, consolidation=self.part)

    def look(self, jobs: dict[Partition, int], seconds: float) -> None:
        """Take a sample as if it were so much later."""
        now = asyncio.get_running_loop().time() + seconds
        self.part.look(Sample(jobs, []), now, draining=self.consumer.resting)

    def told(self) -> Report:
        """Return what it would report now."""
        return told(self.part, self.consumer.generation, draining=self.consumer.resting)

    @property
    def numbers(self) -> list[int]:
        """The partitions held."""
        return sorted(each.source.partition for each in self.consumer.states)


@pytest.mark.kafka
async def test_a_group_on_a_real_broker_fills_one_and_opens_another(
    kafka: Kafka, topic: str
) -> None:
    """Asking for a rebalance brings one; what is reported decides it; a leaver's go on."""
    async with Joined(kafka, topic) as first:
        await until(lambda: len(first.numbers) == PARTITIONS)
        for second in range(1, 5):  # as if measured for a while
            idle = {each.source: 0 for each in first.consumer.states}
            first.look(idle, second)
        await asyncio.sleep(3.1)
        async with Joined(kafka, topic) as other:
            await until(lambda: len(first.seen.assigned) == 2)
            await until(lambda: other.seen.assigned)
            assert (len(first.numbers), other.numbers) == (PARTITIONS, [])
            full = {each.source: 6 for each in first.consumer.states}
            first.look(full, 1_000)
            ask_for_rebalance(first.consumer._consumer)
            half = PARTITIONS // 2
            await until(lambda: len(first.numbers) == len(other.numbers) == half)
            assert sorted(first.numbers + other.numbers) == list(range(PARTITIONS))
            generation = first.consumer.generation
            first.consumer.rest()
            ask_for_rebalance(other.consumer._consumer)
            await until(lambda: first.consumer.generation > generation)
            await until(lambda: len(other.numbers) == PARTITIONS)
            assert first.numbers == []


@pytest.mark.kafka
async def test_a_replaced_consumer_speaks_for_what_it_holds(kafka: Kafka, topic: str) -> None:
    """Before it has joined it has no generation, afterwards that of its new assignment."""
    async with Joined(kafka, topic) as first:
        assert first.told().generation == first.consumer.generation > 0
        await first.consumer.replace()
        await until(lambda: len(first.numbers) == PARTITIONS)
        assert first.told().generation == first.consumer.generation > 0
        assert len(first.told().held) == PARTITIONS
    part, _ = consolidation()
    settings = load_settings(flags={"assignor": "consolidate"}).settings
    not_started = JobsConsumer(settings, first.seen, "test", Commits(), part)
    assert not_started.generation == -1
    await not_started._consumer.stop()


@pytest.mark.kafka
async def test_a_worker_with_another_assignor_is_refused(kafka: Kafka, topic: str) -> None:
    """By the broker, at its start: the group goes on undisturbed."""
    async with Joined(kafka, topic) as first:
        await until(lambda: len(first.numbers) == PARTITIONS)
        with pytest.raises(InconsistentGroupProtocolError):
            await Member(kafka, topic).consumer.start()
        assert len(first.numbers) == PARTITIONS
        assert len(first.seen.assigned) == 1

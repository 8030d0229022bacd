"""Measure what a group's leader computes for each rebalance: who gets which partitions.

    python -m benchmarks.assignor    # writes assignor.csv

aiokafka's sticky assignor, which workers use by default. It runs on the leader's event loop, which
answers no heartbeat meanwhile. CPU time of one assignment: as a worker joins a fleet, and as one
leaves it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.structs import PartitionMetadata, TopicPartition

from benchmarks.record import Row, keep

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUESTION: Final = "assignor"
SIZES: Final = ((20, 1_000), (200, 1_000), (200, 10_000))  # workers, partitions
ROUNDS: Final = 3
TOPIC: Final = "jobs"


def cluster_of(partitions: int) -> ClusterMetadata:
    """Return what a client knows of a cluster with one jobs topic."""
    cluster = ClusterMetadata()
    cluster._partitions = {  # noqa: SLF001 - aiokafka fills it from a broker's answer only
        TOPIC: {each: PartitionMetadata(TOPIC, each, 1, [1], [1], 0) for each in range(partitions)}
    }
    return cluster


def assign(
    cluster: ClusterMetadata, held: Mapping[str, Sequence[int]], generation: int
) -> tuple[float, dict[str, list[int]]]:
    """Assign anew; return the CPU seconds and who has which partitions then."""

    class Assignor(StickyPartitionAssignor):  # what it remembers is in its class
        pass

    members = {}
    for member, partitions in held.items():
        Assignor.member_assignment = [TopicPartition(TOPIC, each) for each in partitions] or None
        Assignor.generation = generation
        members[member] = Assignor.metadata([TOPIC])
    begun = time.thread_time()
    found = Assignor.assign(cluster, members)
    lasted = time.thread_time() - begun
    return lasted, {
        member: [each for _, partitions in given.assignment for each in partitions]
        for member, given in found.items()
    }


def measure(workers: int, partitions: int) -> list[Row]:
    """Let one of so many workers come, and one go."""
    cluster, spent = cluster_of(partitions), {"one joins": list[float](), "one leaves": []}
    held: dict[str, list[int]] = {f"w{number:03}": [] for number in range(workers - 1)}
    _, held = assign(cluster, held, -1)
    for number in range(ROUNDS):
        seconds, held = assign(cluster, held | {f"x{number}": []}, 1)
        spent["one joins"].append(seconds)
        held.pop(f"w{number:03}")
        seconds, held = assign(cluster, held, 1)
        spent["one leaves"].append(seconds)
    return [
        Row.of(
            seconds,
            question=QUESTION,
            provider="sticky",
            metric=f"CPU, {what}",
            x=f"{workers} workers, {partitions} partitions",
            unit="s",
            config=f"{ROUNDS} rounds",
        )
        for what, seconds in spent.items()
    ]


if __name__ == "__main__":
    keep(QUESTION, [row for size in SIZES for row in measure(*size)])

"""Purges: letters are deleted from the start of their log up to a place, as Kafka can."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aril.dead_letters.letter import Note, read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aril.dead_letters.logs import ByPartition, Logs


@dataclass(slots=True)
class Doomed:
    """What a purge deletes: letters by reason, notes of replays, and what is neither."""

    before: ByPartition
    reasons: Counter[str] = field(default_factory=Counter)
    notes: int = 0
    strangers: int = 0

    @property
    def letters(self) -> int:
        """How many letters."""
        return self.reasons.total()

    @property
    def records(self) -> int:
        """All records together."""
        return self.reasons.total() + self.notes + self.strangers


async def until(logs: Logs, topic: str, at_ms: int) -> ByPartition:
    """Return up to where each partition holds only what is older than that."""
    ends = await logs.ends(topic)
    return {
        partition: await logs.at(topic, partition, at_ms, otherwise=end)
        for partition, end in ends.items()
    }


def within(wanted: Mapping[int, int], starts: ByPartition, ends: ByPartition) -> ByPartition:
    """Return how far partitions are deleted. ValueError for one that is not there.

    Never further than they reach now, so that nothing goes that nobody has counted.
    """
    if missing := sorted(wanted.keys() - ends.keys()):
        raise ValueError(f"there is no partition {missing[0]}")
    return {
        partition: max(starts[partition], min(offset, ends[partition]))
        for partition, offset in wanted.items()
    }


async def count(logs: Logs, topic: str, before: ByPartition) -> Doomed:
    """Read what would be deleted; a letter that stands there twice counts once."""
    starts = await logs.starts(topic)
    doomed, met = Doomed(before), set()
    for partition, end in before.items():
        async for raw in logs.read(topic, partition, starts[partition], end):
            found = read(raw, jobs_topic="")
            if found is None:
                doomed.strangers += 1
            elif isinstance(found, Note):
                doomed.notes += 1
            elif found.identity not in met:
                met.add(found.identity)
                doomed.reasons[found.reason] += 1
    return doomed

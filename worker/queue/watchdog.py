"""Notices a consumer that has stopped without a word. Pure: positions in, a judgement out.

aiokafka has fallen silent before (#1037, #847, #712): member of the group, heartbeats on time,
and no record any more. What cannot be explained is a log that goes on behind our position while
nothing comes and nothing is paused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.job import Partition


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading a partition is, as seen from the outside."""

    position: int  # next offset to be read
    end: int  # of the log, asked of the broker and not of the consumer


class Watchdog:
    """Judges one consumer by how its positions move. Times are of any monotonic clock."""

    def __init__(self, *, patience: float) -> None:
        """Wait `patience` seconds before a silence counts."""
        self._patience = patience
        self._still: dict[Partition, tuple[int, float]] = {}  # position, and since when

    def observe(self, seen: Mapping[Partition, Progress], *, now: float) -> list[Partition]:
        """Take note of the partitions that should be read; return those that have fallen silent.

        A partition that is left out (paused, lost) begins anew when it is there again.
        """
        still: dict[Partition, tuple[int, float]] = {}
        silent = []
        for partition, progress in seen.items():
            if progress.position >= progress.end:
                continue
            position, since = self._still.get(partition, (progress.position, now))
            if position != progress.position:
                since = now
            still[partition] = (progress.position, since)
            if now - since >= self._patience:
                silent.append(partition)
        self._still = still
        return silent

    @property
    def behind(self) -> bool:
        """Whether the last look saw records that were not read yet."""
        return bool(self._still)

    def forget(self) -> None:
        """Begin anew, with another consumer."""
        self._still.clear()

"""How much each partition of a worker brings to do, and which adapters its jobs use. Pure.

Sampled about once a second. Smoothed, because a rebalance must not follow a burst that is over
before its end; kept across a rebalance, in which for a moment nothing runs.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.worker.placement.load_report import MAX_ADAPTERS, MAX_PARTITION_ADAPTERS, mark_of
from aril.worker.placement.plan import PartitionLoad

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aril.worker.job import Partition

SMOOTH_SECONDS: Final = 10.0
WARM_SECONDS: Final = 3.0  # before that a partition is not known: its records are still being read


class Sample(NamedTuple):
    """What there is to do at one moment."""

    unfinished: Mapping[Partition, int]  # jobs of each partition that is held
    running: Sequence[tuple[Partition, str]]  # where each job in the engine is from, its adapter


class LoadMeter:
    """Measures one worker. Times are seconds of any one clock."""

    def __init__(self, slots: int) -> None:
        self._recent = _Recent(min(slots, MAX_ADAPTERS))
        self._gauges: dict[Partition, _Gauge] = {}

    def assigned(self, partitions: Mapping[Partition, float | None], now: float) -> None:
        """Begin with these partitions and no others; what is given is what they were before.

        Those that were held already keep what was measured of them.
        """
        self._gauges = {
            each: self._gauges.get(each) or _Gauge(rows, now) for each, rows in partitions.items()
        }

    def observe(self, sample: Sample, now: float) -> None:
        """Take a sample in. What it does not name, as in a rebalance, stays as it was."""
        for each, gauge in self._gauges.items():
            if (jobs := sample.unfinished.get(each)) is not None:
                gauge.observe(jobs, now)
        for source, digest in sample.running:
            mark = mark_of(digest)
            self._recent.note(mark)
            if source in self._gauges:
                self._gauges[source].adapters.note(mark)

    def loads(self, now: float) -> dict[Partition, PartitionLoad]:
        """Return what is known of each partition held."""
        return {
            each: PartitionLoad(gauge.known(now), gauge.adapters.marks)
            for each, gauge in self._gauges.items()
        }

    @property
    def held(self) -> list[Partition]:
        """The partitions that are measured."""
        return list(self._gauges)

    @property
    def adapters(self) -> tuple[int, ...]:
        """The adapters that ran here last, as many as there are slots."""
        return self._recent.marks


class _Gauge:
    """One partition's jobs, smoothed."""

    def __init__(self, rows: float | None, now: float) -> None:
        self._rows = rows
        self._seen = now
        self._known_from = now if rows is not None else now + WARM_SECONDS
        self.adapters = _Recent(MAX_PARTITION_ADAPTERS)

    def observe(self, jobs: int, now: float) -> None:
        if self._rows is None:
            self._rows = float(jobs)
        else:
            weight = 1.0 - math.exp(-max(0.0, now - self._seen) / SMOOTH_SECONDS)
            self._rows += (jobs - self._rows) * weight
        self._seen = now

    def known(self, now: float) -> float | None:
        return self._rows if now >= self._known_from else None


class _Recent:
    """The last few different marks."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._marks: OrderedDict[int, None] = OrderedDict()

    def note(self, mark: int) -> None:
        self._marks[mark] = None
        self._marks.move_to_end(mark)
        if len(self._marks) > self._size:
            self._marks.popitem(last=False)

    @property
    def marks(self) -> tuple[int, ...]:
        return tuple(self._marks)

"""What the demo measures: at the tenants' end by events, in the worker by its metrics."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(slots=True)
class JobTimes:
    """One job as its tenant saw it; times are seconds of one clock."""

    sent: float
    first: float | None = None
    last: float | None = None
    tokens: int = 0
    gaps: list[float] = field(default_factory=list)

    def arrived(self, now: float, tokens: int) -> None:
        """Note tokens that have just come; those of one record share the time since the last."""
        if self.first is None or self.last is None:
            self.first = now
            self.gaps += [0.0] * (tokens - 1)
        else:
            self.gaps += [(now - self.last) / tokens] * tokens
        self.last = now
        self.tokens += tokens

    def restarted(self) -> None:
        """Note that what had come was withdrawn."""
        self.tokens = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """Some jobs together; times in seconds, None where there was nothing to measure."""

    jobs: int
    tokens: int
    tokens_per_second: float | None
    first_p50: float | None
    first_p95: float | None
    gap_p50: float | None
    gap_p95: float | None


def summarise(jobs: Sequence[JobTimes]) -> Summary:
    """Return totals, rate over the time from first sending to last token, and percentiles."""
    firsts = [job.first - job.sent for job in jobs if job.first is not None]
    gaps = [gap for job in jobs for gap in job.gaps]
    ends = [job.last for job in jobs if job.last is not None]
    tokens = sum(job.tokens for job in jobs)
    seconds = max(ends) - min(job.sent for job in jobs) if ends else 0.0
    return Summary(
        jobs=len(jobs),
        tokens=tokens,
        tokens_per_second=tokens / seconds if seconds > 0 else None,
        first_p50=percentile(firsts, 50),
        first_p95=percentile(firsts, 95),
        gap_p50=percentile(gaps, 50),
        gap_p95=percentile(gaps, 95),
    )


def percentile(values: Iterable[float], percent: float) -> float | None:
    """Return the nearest-rank percentile, None of nothing."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True)
class StepCounts:
    """A histogram of the worker's: how many steps there were and what they added up to."""

    steps: float = 0.0
    total: float = 0.0
    buckets: tuple[tuple[float, float], ...] = ()  # (upper bound, steps up to it)

    def since(self, before: StepCounts) -> StepCounts:
        """Return what was counted after `before`."""
        earlier = dict(before.buckets)
        return StepCounts(
            self.steps - before.steps,
            self.total - before.total,
            tuple((bound, count - earlier.get(bound, 0.0)) for bound, count in self.buckets),
        )

    def plus(self, other: StepCounts) -> StepCounts:
        """Return both together, as of two workers."""
        if not self.buckets:
            return other
        added = dict(other.buckets)
        return StepCounts(
            self.steps + other.steps,
            self.total + other.total,
            tuple((bound, count + added.get(bound, 0.0)) for bound, count in self.buckets),
        )

    @property
    def mean(self) -> float | None:
        """The mean over steps."""
        return self.total / self.steps if self.steps else None

    @property
    def most(self) -> float | None:
        """An upper bound of the largest value: the lowest bucket that holds all steps."""
        full = [bound for bound, count in self.buckets if self.steps and count >= self.steps]
        return min(full, default=None)


def read_histogram(exposition: str, name: str) -> StepCounts:
    """Read one unlabelled histogram from Prometheus' text format."""
    steps = total = 0.0
    buckets = []
    for line in exposition.splitlines():
        if not line.startswith(name):
            continue
        key, _, value = line.rpartition(" ")
        if key == f"{name}_count":
            steps = float(value)
        elif key == f"{name}_sum":
            total = float(value)
        elif key.startswith(f'{name}_bucket{{le="'):
            bound = key.removeprefix(f'{name}_bucket{{le="').removesuffix('"}')
            buckets.append((float(bound), float(value)))
    return StepCounts(steps, total, tuple(buckets))

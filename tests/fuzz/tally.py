"""What came of many cases of one target, in a form that can be added up and kept in a file."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Final

STEPS: Final = 16  # buckets for each doubling of the time: p99 to about 4 %
MAX_FAILURES: Final = 20
MAX_CODES: Final = 200


@dataclass(slots=True)
class Tally:
    """Counts of one target. Times are CPU time of the thread."""

    cases: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    slowest_ns: int = 0
    slowest: int = -1  # its number
    total_ns: int = 0
    times: dict[str, int] = field(default_factory=dict)  # by bucket
    sampled: int = 0  # cases whose memory was looked at
    peak_bytes: int = 0
    peak: int = -1
    failed: int = 0
    failures: list[tuple[int, str]] = field(default_factory=list)

    def took(self, number: int, verdict: str, nanoseconds: int) -> None:
        """Count a case that went as it should."""
        self.cases += 1
        name = verdict if verdict in self.verdicts or len(self.verdicts) < MAX_CODES else "others"
        self.verdicts[name] = self.verdicts.get(name, 0) + 1
        self.total_ns += nanoseconds
        bucket = str(int(STEPS * math.log2(max(1, nanoseconds))))
        self.times[bucket] = self.times.get(bucket, 0) + 1
        if nanoseconds > self.slowest_ns:
            self.slowest_ns, self.slowest = nanoseconds, number

    def held(self, number: int, peak: int) -> None:
        """Note the memory of a case."""
        self.sampled += 1
        if peak > self.peak_bytes:
            self.peak_bytes, self.peak = peak, number

    def failure(self, number: int, what: str) -> None:
        """Note a case that went as none may."""
        self.cases += 1
        self.failed += 1
        if len(self.failures) < MAX_FAILURES:
            self.failures.append((number, what))

    def add(self, other: Tally) -> None:
        """Add another one of the same target."""
        self.cases += other.cases
        self.total_ns += other.total_ns
        self.sampled += other.sampled
        self.failed += other.failed
        for mine, theirs in ((self.verdicts, other.verdicts), (self.times, other.times)):
            for key, number in theirs.items():
                mine[key] = mine.get(key, 0) + number
        if other.slowest_ns > self.slowest_ns:
            self.slowest_ns, self.slowest = other.slowest_ns, other.slowest
        if other.peak_bytes > self.peak_bytes:
            self.peak_bytes, self.peak = other.peak_bytes, other.peak
        self.failures = (self.failures + other.failures)[:MAX_FAILURES]

    def quantile_us(self, share: float) -> float:
        """Return the time that this share of cases stayed below, in µs."""
        wanted, seen = share * sum(self.times.values()), 0
        for bucket, number in sorted((int(key), number) for key, number in self.times.items()):
            seen += number
            if seen >= wanted:
                return 2 ** ((bucket + 1) / STEPS) / 1_000
        return 0.0

    def as_fields(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def of_fields(cls, fields: dict[str, Any]) -> Tally:
        """Read what `as_fields` wrote."""
        failures = [(number, what) for number, what in fields["failures"]]
        return cls(**(fields | {"failures": failures}))

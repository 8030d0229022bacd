"""A histogram that is kept where no registry is: a part counts, and a scrape reads."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

# How many there were of something small: rows, adapters, tokens of a record.
COUNTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)


class Distribution:
    """Values by bucket and their sum. One thread adds; others may read, a value late at most."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Prepare; `bounds` are the buckets' upper ends, ascending, the infinite one left out."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0  # of the values

    def observe(self, value: float) -> None:
        """Add one."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return each upper bound with how many values are at most that, as Prometheus tells it."""
        bounds = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))

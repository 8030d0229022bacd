"""A worker's page of metrics, and what has changed between two of them. Pure.

Workers of several versions may be in one group: a name that a page does not have is None, and a
figure that went by another name is found by any of the names that are given.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

Labels = tuple[tuple[str, str], ...]
"""Names and values, in order of the names."""

NO_LABELS: Final[Labels] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """The samples of a page, by name and labels."""

    samples: Mapping[str, Mapping[Labels, float]]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read Prometheus' text format. Raises ValueError for what is none."""
        samples: defaultdict[str, dict[Labels, float]] = defaultdict(dict)
        try:
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if not math.isnan(sample.value):
                        labels = tuple(sorted(sample.labels.items()))
                        samples[sample.name][labels] = sample.value
        except (ValueError, LookupError) as error:  # whatever the parser trips over
            raise ValueError("no page of metrics") from error
        return cls(dict(samples))

    def series(self, *names: str) -> Mapping[Labels, float] | None:
        """Return the series of the first of these names that is there."""
        return next((self.samples[name] for name in names if name in self.samples), None)

    def total(self, *names: str) -> float | None:
        """Return the sum over a name's series."""
        series = self.series(*names)
        return None if series is None else sum(series.values())

    def by(self, label: str, *names: str) -> dict[str, float]:
        """Return the sums over a name's series by a label; what has no such label is left out."""
        return summed(label, self.series(*names) or {})


def summed(label: str, series: Mapping[Labels, float]) -> dict[str, float]:
    """Add series up by one of their labels."""
    sums: defaultdict[str, float] = defaultdict(float)
    for labels, value in series.items():
        for name, of in labels:
            if name == label:
                sums[of] += value
    return dict(sums)


class Span(NamedTuple):
    """Two pages of one worker, so many seconds apart; without a first one nothing is known yet."""

    before: Page | None
    now: Page
    seconds: float

    def increase(self, *names: str) -> Mapping[Labels, float] | None:
        """Return by how much a counter has grown, series by series.

        One that fell began anew with its process: all that it shows came since. One that was not
        there before had counted nothing, as series with labels come with their first count.
        """
        series = self.now.series(*names)
        if series is None or self.before is None:
            return None
        earlier = self.before.series(*names)
        if earlier is None:
            earlier = {}
        grown = {}
        for labels, value in series.items():
            was = earlier.get(labels, 0.0)
            grown[labels] = value - was if value >= was else value
        return grown

    def rate(self, *names: str) -> float | None:
        """Return how much a counter grows a second, all series together."""
        grown = self.increase(*names)
        return None if grown is None or self.seconds <= 0 else sum(grown.values()) / self.seconds

    def rates(self, label: str, *names: str) -> dict[str, float]:
        """Return the same by a label."""
        if self.seconds <= 0:
            return {}
        grown = summed(label, self.increase(*names) or {})
        return {of: value / self.seconds for of, value in grown.items()}

    def mean(self, histogram: str) -> float | None:
        """Return the mean of what a histogram took in meanwhile; None if that was nothing."""
        total, count = self.increase(f"{histogram}_sum"), self.increase(f"{histogram}_count")
        number = sum((count or {}).values())
        return sum((total or {}).values()) / number if number else None

"""How a family of metrics is made: its name in full, its words, its labels.

A name is a contract: ``aril_``, base units, ``_total`` on counters. It stands in the code as it is
scraped. docs/reference/metrics.md is made from what is made here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

Kind = Literal["counter", "gauge", "histogram", "info"]

# Seconds within a job: between tokens, a pass of claims, a constraint.
SHORT_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1, 2.5, 5, 10, 30, 60, 300),
)
# Seconds of a job: a token of a fast engine to a queue that waits out the night. ARIL_MAX_JOB_AGE
# is a day by default.
JOB_SECONDS: Final = (
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    *(60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400, 28_800, 43_200, 86_400),
)

_UNITS: Final = ("seconds", "bytes", "ratio", "tokens", "jobs", "records", "blocks")


@dataclass(frozen=True, slots=True)
class Family:
    """One family, as it is scraped."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def unit(self) -> str:
        """What is measured or counted, by the last word of the name that says so; or empty."""
        words = reversed(self.name.split("_"))
        return next((word for word in words if word in _UNITS), "")


class Families:
    """Makes the families of one registry, and remembers them in the order of their making."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.made: list[Family] = []
        self._sections: list[tuple[str, int]] = []  # titles, and how many came before

    def section(self, title: str) -> None:
        """Let what is made from here on stand under a title."""
        self._sections.append((title, len(self.made)))

    def sections(self) -> dict[str, list[Family]]:
        """Return all families by title."""
        ends = [*(begin for _, begin in self._sections[1:]), len(self.made)]
        return {
            title: self.made[begin:end]
            for (title, begin), end in zip(self._sections, ends, strict=True)
        }

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Make one; `name` ends in ``_total``."""
        self.made.append(Family(name, "counter", text, labels))
        return Counter(name, text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Make one."""
        self.made.append(Family(name, "gauge", text, labels))
        return Gauge(name, text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        """Make one; `buckets` are upper bounds."""
        self.made.append(Family(name, "histogram", text, labels, buckets))
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def info(self, name: str, text: str, *labels: str) -> Info:
        """Make one; `name` ends in ``_info``, and what is told has these labels."""
        self.made.append(Family(name, "info", text, labels))
        return Info(name.removesuffix("_info"), text, registry=self.registry)

    def collected(self, collector: Collector, *families: Family) -> None:
        """Take in families whose values somebody else keeps: `collector` reads them at a scrape."""
        self.made += families
        self.registry.register(collector)

"""What a scrape has read, to be made a page of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Metric


class Collected:
    """All metrics of a registry as they are now; another thread may encode them.

    Times of creation are left out: each would be one more series, and who reads them takes a
    restart by the counters themselves.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._metrics = list(registry.collect())
        for metric in self._metrics:
            created = f"{metric.name}_created"
            metric.samples = [each for each in metric.samples if each.name != created]

    def collect(self) -> list[Metric]:
        """Return them."""
        return self._metrics

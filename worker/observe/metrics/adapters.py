"""Adapters by name, of those that jobs ask for most; all others are one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from aril.worker.observe.metrics.bounded_names import OTHER, BoundedNames
from aril.worker.observe.metrics.families import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from aril.worker.observe.metrics.engine import EngineCollector
    from aril.worker.observe.metrics.families import Families

_LOADED: Final = Family(
    "aril_adapter_loaded",
    "gauge",
    "1 for an adapter that is there: in a slot (level device) or in host memory (level host), by"
    " its place in the store, owner/name. It is told of the ARIL_METRICS_TENANTS adapters that jobs"
    f" ask for most; {OTHER} is how many others are there.",
    ("adapter_name", "level"),
)


class AdapterMetrics:
    """Families with the label `adapter_name`; without any series where nobody is to be named."""

    def __init__(self, families: Families, most: int, engine: EngineCollector) -> None:
        """Name up to `most` adapters; the engine says which are there."""
        families.section("Adapters by name")
        self._most = most
        self._engine = engine
        self._names = BoundedNames(most, forget=self._forget)
        self._digests: dict[str, str] = {}  # of what has a name: the content last asked for
        self._jobs = families.counter(
            "aril_adapter_jobs_total",
            "Jobs begun with an adapter, one of a mixture each; those that begin again, once.",
            "adapter_name",
        )
        families.collected(self, _LOADED)

    def begun(self, name: str, digest: str) -> None:
        """Count a job that was begun with an adapter, by its place in the store."""
        if not self._most:
            return
        label = self._names.use(name, 1, time.monotonic())
        if label != OTHER:
            self._digests[label] = digest
        self._jobs.labels(label).inc()

    def describe(self) -> list[Metric]:
        """Name the gauge."""
        return [_metric()]

    def collect(self) -> Iterable[Metric]:
        """Ask the engine which are there."""
        stats = self._engine.now() if self._most else None
        if stats is None:
            return
        metric = _metric()
        for level, digests in (("device", stats.in_slots), ("host", stats.in_memory)):
            there = set(digests)
            for name, digest in self._digests.items():
                if digest in there:
                    metric.add_metric([name, level], 1)
            metric.add_metric([OTHER, level], len(there.difference(self._digests.values())))
        yield metric

    def _forget(self, name: str) -> None:
        self._digests.pop(name, None)
        self._jobs.remove(name)


def _metric() -> GaugeMetricFamily:
    return GaugeMetricFamily(_LOADED.name, _LOADED.text, labels=_LOADED.labels)

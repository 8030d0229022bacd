"""All that a worker counts and measures: `Metrics`. One file a concern.

Labels are closed sets, but for `tenant`, `adapter_name`, `topic` and `partition`, whose number is
bounded: ARIL_METRICS_TENANTS, and `queue.MOST_PARTITIONS`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.worker.observe.metrics.adapters import AdapterMetrics
from aril.worker.observe.metrics.engine import EngineCollector
from aril.worker.observe.metrics.families import Families
from aril.worker.observe.metrics.gen_ai import GenAiMetrics
from aril.worker.observe.metrics.jobs import ANSWERED_BEFORE, Ended, JobMetrics
from aril.worker.observe.metrics.process import ProcessMetrics
from aril.worker.observe.metrics.queue import Lag, QueueMetrics
from aril.worker.observe.metrics.tenants import Place, TenantMetrics

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["ANSWERED_BEFORE", "Ended", "Lag", "Metrics", "Place"]

DEFAULT_NAMES: Final = 20  # of ARIL_METRICS_TENANTS


class Metrics(ProcessMetrics, JobMetrics, QueueMetrics):
    """All metrics of one worker, in a registry of its own. Belongs to the event loop."""

    def __init__(self, names: int = DEFAULT_NAMES) -> None:
        """Prepare; up to `names` tenants and as many adapters are told of by name."""
        self.families = families = Families()
        JobMetrics.__init__(self, families)
        QueueMetrics.__init__(self, families)
        ProcessMetrics.__init__(self, families)
        self.engine = EngineCollector(families)
        self.adapters = AdapterMetrics(families, names, self.engine)
        self.tenants = TenantMetrics(families, names)
        self.gen_ai = GenAiMetrics(families)

    @property
    def registry(self) -> CollectorRegistry:
        """What is scraped."""
        return self.families.registry

    def moved(self, tenant: str, cost: int, before: Place | None, after: Place | None) -> None:
        """Note that a job came to wait or to run, or does so no longer; its cost is in tokens."""
        self.tenants.moved(tenant, before, after)
        self.waiting_tokens.inc(cost * ((after == "waiting") - (before == "waiting")))

    def ended(self, job: Ended) -> None:
        """Count a job that has ended: each comes here once, on the worker that ends it."""
        self.jobs.labels(end=job.end).inc()
        if job.end != ANSWERED_BEFORE:
            self.job_seconds.observe(job.seconds)
            self.tenants.ended(job)
            self.gen_ai.ended(job)

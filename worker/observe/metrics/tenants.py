"""The same by tenant, of those who use the most tokens; all others are one.

Counted where a job ends, so a token costs nothing here, and one whose answer was begun by several
workers is counted by the last of them alone.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client.core import GaugeMetricFamily

from aril.worker.observe.metrics.bounded_names import OTHER, BoundedNames
from aril.worker.observe.metrics.families import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Counter, Histogram, Metric

    from aril.worker.observe.metrics.families import Families
    from aril.worker.observe.metrics.jobs import Ended

Place = Literal["waiting", "running"]
PLACES: Final[tuple[Place, ...]] = ("waiting", "running")

# Few: there are as many series for each tenant.
_TTFT_SECONDS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60, 600, 3_600, 86_400)
_GAUGES: Final[dict[Place, Family]] = {
    "waiting": Family(
        "aril_tenant_waiting_jobs", "gauge", "Jobs of a tenant read and not begun.", ("tenant",)
    ),
    "running": Family(
        "aril_tenant_running_jobs", "gauge", "Jobs of a tenant in the engine.", ("tenant",)
    ),
}


@dataclass(frozen=True, slots=True)
class _Series:
    """The series of one label, looked up once."""

    prompt_tokens: Counter
    tokens: Counter
    ttft_seconds: Histogram
    jobs: dict[str, Counter] = field(default_factory=dict)  # by end


class TenantMetrics:
    """Families with the label `tenant`; without any series where nobody is to be named."""

    def __init__(self, families: Families, most: int) -> None:
        """Name up to `most` tenants."""
        families.section("Tenants by name")
        self._most = most
        self._names = BoundedNames(most, forget=self._forget)
        self._jobs = families.counter(
            "aril_tenant_jobs_total",
            "Jobs of a tenant ended, each once. The label tenant has the ARIL_METRICS_TENANTS with"
            f" the most tokens of late; {OTHER} are all the others.",
            *("tenant", "end"),
        )
        self._prompt_tokens = families.counter(
            "aril_tenant_prompt_tokens_total", "Prompt tokens of such jobs.", "tenant"
        )
        self._tokens = families.counter(
            "aril_tenant_tokens_total", "Tokens of their answers, each counted once.", "tenant"
        )
        self._ttft_seconds = families.histogram(
            "aril_tenant_ttft_seconds",
            "Log-append time to the first token, of jobs begun here.",
            _TTFT_SECONDS,
            "tenant",
        )
        self._series: dict[str, _Series] = {}
        self._at: dict[Place, Tally[str]] = {place: Tally() for place in PLACES}
        families.collected(self, *_GAUGES.values())

    def moved(self, tenant: str, before: Place | None, after: Place | None) -> None:
        """Note that a job came to wait or to run, or does so no longer."""
        if before is not None:
            left = self._at[before]
            left[tenant] -= 1
            if not left[tenant]:
                del left[tenant]
        if after is not None:
            self._at[after][tenant] += 1

    def ended(self, job: Ended) -> None:
        """Count a job that has ended."""
        if not self._most:
            return
        label = self._names.use(job.tenant, job.prompt_tokens + job.tokens, time.monotonic())
        series = self._series.get(label)
        if series is None:
            series = self._series[label] = _Series(
                self._prompt_tokens.labels(label),
                self._tokens.labels(label),
                self._ttft_seconds.labels(label),
            )
        if job.end not in series.jobs:
            series.jobs[job.end] = self._jobs.labels(label, job.end)
        series.jobs[job.end].inc()
        series.prompt_tokens.inc(job.prompt_tokens)
        series.tokens.inc(job.tokens)
        if job.first_token_seconds is not None:
            series.ttft_seconds.observe(job.first_token_seconds)

    def describe(self) -> list[Metric]:
        """Name the gauges."""
        return [_metric(family) for family in _GAUGES.values()]

    def collect(self) -> Iterable[Metric]:
        """Read the gauges: of who has a name, and of all others together."""
        if not self._most:
            return
        for place, family in _GAUGES.items():
            metric, jobs = _metric(family), self._at[place]
            told = 0
            for tenant in self._names.named:
                metric.add_metric([tenant], jobs[tenant])
                told += jobs[tenant]
            metric.add_metric([OTHER], jobs.total() - told)
            yield metric

    def _forget(self, tenant: str) -> None:
        if self._series.pop(tenant, None) is not None:
            for family in (self._jobs, self._prompt_tokens, self._tokens, self._ttft_seconds):
                family.remove_by_labels({"tenant": tenant})


def _metric(family: Family) -> GaugeMetricFamily:
    return GaugeMetricFamily(family.name, family.text, labels=family.labels)

"""The queue's side: partitions, rebalances, commits, and how far reading is behind."""

from __future__ import annotations

from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, Final

from prometheus_client.core import GaugeMetricFamily

from aril.worker.observe.metrics.bounded_names import OTHER
from aril.worker.observe.metrics.families import SHORT_SECONDS, Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prometheus_client import Metric

    from aril.worker.observe.metrics.families import Families

MOST_PARTITIONS: Final = 100  # named by their lag; a worker may hold thousands


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one partition is behind the end of its log, in offsets."""

    unfinished: int  # read and open, or not read
    unread: int  # of these, not read


class QueueMetrics:
    """Families of the consumer and its group."""

    def __init__(self, families: Families) -> None:
        families.section("Queue, group and commits")
        counter, gauge, histogram = families.counter, families.gauge, families.histogram
        self.partitions = gauge("aril_partitions", "Jobs partitions held.")
        self.standby = gauge("aril_standby", "1 while in the group with no partition, else 0.")
        self.rebalances = counter(
            "aril_rebalances_total", "Assignments of partitions, the first one included."
        )
        self.rebalance_seconds = histogram(
            "aril_rebalance_seconds",
            "From giving all partitions back to having the next assignment set up. Running jobs"
            " go on meanwhile.",
            SHORT_SECONDS,
        )
        self.commit_seconds = histogram(
            "aril_commit_seconds", "One commit, whatever the brokers say to it.", SHORT_SECONDS
        )
        self.commit_failures = counter(
            "aril_commit_failures_total",
            "Commits that were refused or not answered. A few beside a rebalance are expected: what"
            " they told is committed anew by whoever has the partition then.",
        )
        self.unread_jobs = gauge(
            "aril_unread_jobs",
            "Of aril_partition_lag_jobs, all partitions together: those that were not read yet.",
        )
        self.partitions_gained = counter(
            "aril_partitions_gained_total", "Partitions not held before, where it consolidates."
        )
        self.rebalances_asked = counter(
            "aril_rebalances_asked_total",
            "Rebalances asked for, to open a worker or to close one, where it consolidates.",
            "why",
        )
        self.load_rows = gauge(
            "aril_load_rows", "Jobs that run or wait, smoothed, where it consolidates."
        )
        self.workers_open = gauge(
            "aril_workers_open",
            "Workers with partitions, by the leader at the last rebalance; the same on all.",
        )
        self.workers_standby = gauge(
            "aril_workers_standby", "Workers that stand by, by the same count."
        )
        self.clock_skew_seconds = gauge(
            "aril_clock_skew_seconds",
            "How far this worker's clock is ahead of the brokers', by the log-append times of its"
            " own appends. Deadlines are judged by the brokers' time; figures in seconds since a"
            " log-append time are off by this.",
        )
        self.lag = PartitionLag(families)
        self._without_since: float | None = None

    def partitions_gone(self, now: float) -> None:
        """Note that all partitions were given back, at a monotonic time in seconds."""
        if self._without_since is None:
            self._without_since = now

    def assigned(self, now: float) -> None:
        """Note that an assignment is set up, be it an empty one."""
        self.rebalances.inc()
        if self._without_since is not None:
            self.rebalance_seconds.observe(now - self._without_since)
            self._without_since = None

    def committed(self, seconds: float, accepted: bool) -> None:
        """Count one commit."""
        self.commit_seconds.observe(seconds)
        if not accepted:
            self.commit_failures.inc()

    def behind(self, lags: Mapping[tuple[str, int], Lag]) -> None:
        """Take in how far each partition is behind, of all that are held and known."""
        self.unread_jobs.set(sum(lag.unread for lag in lags.values()))
        self.lag.lags = {place: lag.unfinished for place, lag in lags.items()}


class PartitionLag:
    """Collects the lag by partition: the worst by name, the others together."""

    def __init__(self, families: Families) -> None:
        self._family = Family(
            "aril_partition_lag_jobs",
            "gauge",
            "Jobs that are not finished, up to the end of the partition's log: read or not. The"
            f" ends are asked of the brokers every 15 s. Of the {MOST_PARTITIONS} partitions with"
            f" the most; of all others together as topic {OTHER}.",
            ("topic", "partition"),
        )
        self.lags: Mapping[tuple[str, int], int] = {}
        families.collected(self, self._family)

    def describe(self) -> list[Metric]:
        """Name the family."""
        return [self._metric()]

    def collect(self) -> Iterable[Metric]:
        """Return the lags as they are known."""
        metric = self._metric()
        worst = nlargest(MOST_PARTITIONS, self.lags.items(), key=lambda item: (item[1], item[0]))
        for (topic, partition), lag in worst:
            metric.add_metric([topic, str(partition)], lag)
        if len(self.lags) > len(worst):
            others = sum(self.lags.values()) - sum(lag for _, lag in worst)
            metric.add_metric([OTHER, ""], others)
        return [metric]

    def _metric(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._family.name, self._family.text, labels=self._family.labels)

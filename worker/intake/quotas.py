"""Whether a tenant's job is let in, and whether its next one may start: counts and rates.

Rates are token buckets that hold what comes in `burst_seconds`. Jobs are counted as they were
appended to the log, by its times: whoever reads them judges alike, be it late. Tokens are counted
as they are computed; a bucket may go below nothing, and then no job starts until it is filled.
Each worker counts for itself.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

from aril.schemas import ErrorCode, JobError
from aril.worker.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from aril.worker.intake.tenant_limits import TenantLimits
    from aril.worker.job import Entry

# A job counts as waiting until it runs for the first time, or it is known how it ends.
WAITS: Final = frozenset(
    {
        Stage.ARRIVED,
        Stage.WAITING,
        Stage.CLAIMING,
        Stage.PARKED,
        Stage.PREPARING,
        Stage.FETCHING,
        Stage.GATHERING,
    }
)
FORGET_AT: Final = 4_096  # buckets; full ones say nothing


class Bucket:
    """What a rate has left. Times are seconds of any clock that does not run backwards."""

    __slots__ = ("at", "level", "rate", "seconds", "size")

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        self.rate = rate
        self.seconds = seconds
        self.size = max(1.0, rate * seconds)  # a whole one, or there never would be one
        self.level = self.size
        self.at = now

    def fill(self, now: float) -> float:
        """Let in what has come since; return what there is."""
        self.level = min(self.size, self.level + max(0.0, now - self.at) * self.rate)
        self.at = max(self.at, now)
        return self.level

    def is_behind(self, now: float) -> bool:
        """Tell whether a time is one that it has long passed.

        What came then it filled up for and let overflow: another partition was read first.
        """
        return now < self.at - self.seconds

    def seconds_until(self, level: float) -> float:
        """Return how long it takes until there is so much."""
        return max(0.0, level - self.level) / self.rate


class Quotas:
    """The tenants' limits, and what they have used of them. Lives on the event loop."""

    def __init__(self, limits: TenantLimits) -> None:
        self._limits = limits
        self._waiting: Counter[str] = Counter()  # jobs, by tenant
        self._waiting_bytes: Counter[str] = Counter()
        # Of jobs: by the log's times where those beyond are refused, by our clock where they wait.
        self._sent: dict[str, Bucket] = {}
        self._begun: dict[str, Bucket] = {}
        self._tokens: dict[str, Bucket] = {}
        self._owing: set[str] = set()  # whose next job has to wait

    def admit(self, entry: Entry, now: float) -> JobError | None:
        """Count a job that was read; return why it is refused, if it is.

        Only one that nobody can have begun is: `now` is in seconds of the event loop's clock.
        """
        limit = self._limits.of(entry.tenant)
        refusal = None
        if entry.owned:
            refusal = self._waiting_refusal(entry) or self._rate_refusal(entry, now)
        if refusal is None:
            entry.counted = entry.size
            self._waiting[entry.tenant] += 1
            self._waiting_bytes[entry.tenant] += entry.size
            if limit.jobs_per_second is not None and limit.over == "refuse":
                bucket = self._job_bucket(entry)
                bucket.level -= not bucket.is_behind(_sent_at(entry))
        return refusal

    def moved(self, entry: Entry) -> None:
        """Note that a job came to another stage."""
        if entry.counted and entry.stage not in WAITS:
            self._waiting[entry.tenant] -= 1
            self._waiting_bytes[entry.tenant] -= entry.counted
            entry.counted = 0
            if not self._waiting[entry.tenant]:
                del self._waiting[entry.tenant], self._waiting_bytes[entry.tenant]

    def worked(self, tenant: str, tokens: int, now: float) -> None:
        """Note that tokens were computed for a tenant."""
        if self._limits.of(tenant).tokens_per_second is not None:
            self._token_bucket(tenant, now).level -= tokens
            self._see(tenant, now)

    def started(self, tenant: str, now: float) -> None:
        """Note that a job's turn has come, where jobs beyond the rate wait."""
        limit = self._limits.of(tenant)
        if limit.jobs_per_second is not None and limit.over == "wait":
            bucket = self._bucket(self._begun, tenant, limit.jobs_per_second, now)
            bucket.level -= 1
            self._see(tenant, now)

    def look(self, now: float) -> None:
        """Let those start jobs again whose rates allow it by now."""
        for tenant in [*self._owing]:
            self._see(tenant, now)

    @property
    def held_back(self) -> AbstractSet[str]:
        """The tenants whose next job may not start yet."""
        return self._owing

    def _waiting_refusal(self, entry: Entry) -> JobError | None:
        limit = self._limits.of(entry.tenant)
        jobs, size = self._waiting[entry.tenant], self._waiting_bytes[entry.tenant]
        if limit.waiting_jobs is not None and jobs >= limit.waiting_jobs:
            return _overloaded("jobs wait", limit.waiting_jobs, jobs + 1)
        if limit.waiting_bytes is not None and size + entry.size > limit.waiting_bytes:
            return _overloaded("bytes wait", limit.waiting_bytes, size + entry.size)
        return None

    def _rate_refusal(self, entry: Entry, now: float) -> JobError | None:
        limit = self._limits.of(entry.tenant)
        if limit.over == "wait":
            return None
        if limit.jobs_per_second is not None:
            bucket = self._job_bucket(entry)
            if bucket.level < 1 and not bucket.is_behind(_sent_at(entry)):
                seconds = bucket.seconds_until(1)
                return _overloaded("jobs a second", limit.jobs_per_second, None, seconds)
        if limit.tokens_per_second is not None:
            tokens = self._token_bucket(entry.tenant, now)
            if tokens.level <= 0:
                seconds = tokens.seconds_until(1)
                return _overloaded("tokens a second", limit.tokens_per_second, None, seconds)
        return None

    def _job_bucket(self, entry: Entry) -> Bucket:
        rate = self._limits.of(entry.tenant).jobs_per_second
        assert rate is not None, "there is a rate"  # noqa: S101 - ours
        return self._bucket(self._sent, entry.tenant, rate, _sent_at(entry))

    def _token_bucket(self, tenant: str, now: float) -> Bucket:
        rate = self._limits.of(tenant).tokens_per_second
        assert rate is not None, "there is a rate"  # noqa: S101 - ours
        return self._bucket(self._tokens, tenant, rate, now)

    def _bucket(self, buckets: dict[str, Bucket], tenant: str, rate: float, now: float) -> Bucket:
        """Return a tenant's bucket, filled; a new one where its limit has changed."""
        seconds = self._limits.of(tenant).burst_seconds
        bucket = buckets.get(tenant)
        if bucket is None or (bucket.rate, bucket.seconds) != (rate, seconds):
            if buckets and not len(buckets) % FORGET_AT:  # seldom: it looks at all
                full = [name for name, each in buckets.items() if each.fill(now) >= each.size]
                for name in full:
                    del buckets[name]
            bucket = buckets[tenant] = Bucket(rate, seconds, now)
        bucket.fill(now)
        return bucket

    def _see(self, tenant: str, now: float) -> None:
        """Learn whether a tenant's next job has to wait."""
        limit = self._limits.of(tenant)
        tokens, jobs = self._tokens.get(tenant), self._begun.get(tenant)
        owes = limit.tokens_per_second is not None and tokens is not None and tokens.fill(now) <= 0
        if limit.over == "wait" and limit.jobs_per_second is not None and jobs is not None:
            owes = owes or jobs.fill(now) < 1
        if owes:
            self._owing.add(tenant)
        else:
            self._owing.discard(tenant)


def _sent_at(entry: Entry) -> float:
    return entry.record.timestamp_ms / 1_000


def _overloaded(what: str, limit: float, given: float | None, seconds: float = 1.0) -> JobError:
    return JobError(
        ErrorCode.OVERLOADED,
        f"tenant: at most {limit:g} {what}",
        limit=limit,
        given=given,
        retry_after_ms=max(1, math.ceil(seconds * 1_000)),
    )

"""What is shown of a group: a row a worker, a tenant, an adapter. Pure."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aril.top.page import Page, Span

OTHER: Final = "_other"  # all tenants, or adapters, that have no series of their own
READY: Final = "ready"
STANDBY: Final = "stands by"
DRAINING: Final = "draining"
NOT_READY: Final = "not ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRow:
    """One worker. A figure that it does not tell, or not yet, is None."""

    address: str
    state: str
    partitions: float | None = None
    running: float | None = None  # jobs in the engine
    waiting: float | None = None  # jobs read and not begun
    lag: float | None = None  # jobs in its partitions that are not read yet
    waiting_tokens: float | None = None
    rows: float | None = None  # jobs a step, on average
    adapters: float | None = None  # distinct ones among them
    tokens: float | None = None  # a second
    prompt_tokens: float | None = None  # a second
    jobs: float | None = None  # ended, a second
    first_token: float | None = None  # seconds, on average
    kv: float | None = None  # of the KV cache, 0 to 1
    takeovers: float | None = None  # claims, since its start
    problem: str = ""


@dataclass(slots=True, kw_only=True)
class TenantRow:
    """One tenant, at all workers."""

    name: str
    running: float = 0.0
    waiting: float = 0.0
    tokens: float = 0.0  # a second
    prompt_tokens: float = 0.0  # a second
    jobs: float = 0.0  # ended, a second


@dataclass(slots=True, kw_only=True)
class AdapterRow:
    """One adapter: at how many workers it is in a slot, and in host memory."""

    name: str
    device: int = 0
    host: int = 0
    jobs: float = 0.0  # begun, a second


@dataclass(frozen=True, slots=True)
class Group:
    """All that is known of the workers at one moment."""

    workers: Sequence[WorkerRow] = ()
    tenants: Sequence[TenantRow] = ()  # the busiest first
    adapters: Sequence[AdapterRow] = ()  # same
    seconds: float = field(default=0.0)  # over which rates are

    def total(self, figure: str) -> float | None:
        """Return the sum of a figure over the workers that tell it."""
        told = [value for row in self.workers if (value := getattr(row, figure)) is not None]
        return sum(told) if told else None


def group_of(spans: Mapping[str, Span | str]) -> Group:
    """Return what workers tell, by address; of one that does not answer, why."""
    told = [span for span in spans.values() if not isinstance(span, str)]
    return Group(
        [worker_row(address, span) for address, span in spans.items()],
        _tenants(told),
        _adapters(told),
        max((span.seconds for span in told if span.before is not None), default=0.0),
    )


def worker_row(address: str, span: Span | str) -> WorkerRow:
    """Return one worker's row."""
    if isinstance(span, str):
        return WorkerRow(address=address, state="-", problem=span)
    page = span.now
    return WorkerRow(
        address=address,
        state=_state(page),
        partitions=page.total("aril_partitions"),
        running=page.total("aril_running_jobs"),
        waiting=page.total("aril_backlog_jobs"),
        lag=page.total("aril_unread_jobs"),
        waiting_tokens=page.total("aril_waiting_tokens"),
        rows=span.mean("aril_step_rows"),
        adapters=span.mean("aril_step_adapters"),
        tokens=span.rate("aril_tokens_total"),
        prompt_tokens=span.rate("aril_prompt_tokens_total"),
        jobs=span.rate("aril_jobs_total"),
        first_token=span.mean("aril_ttft_seconds"),
        kv=_share(page.total("aril_kv_blocks_used"), page.total("aril_kv_blocks")),
        takeovers=page.total("aril_claims_total"),
    )


def _state(page: Page) -> str:
    if page.total("aril_draining"):
        return DRAINING
    ready, standby = page.total("aril_ready"), page.total("aril_standby")
    if ready == 0:
        return NOT_READY
    return STANDBY if standby else READY


def _share(used: float | None, there_are: float | None) -> float | None:
    return None if used is None or not there_are else used / there_are


def _tenants(spans: Sequence[Span]) -> list[TenantRow]:
    rows: dict[str, TenantRow] = {}

    def add(figure: str, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            row = rows.setdefault(name, TenantRow(name=name))
            setattr(row, figure, getattr(row, figure) + value)

    for span in spans:
        add("running", span.now.by("tenant", "aril_tenant_running_jobs"))
        add("waiting", span.now.by("tenant", "aril_tenant_waiting_jobs"))
        add("tokens", span.rates("tenant", "aril_tenant_tokens_total"))
        add("prompt_tokens", span.rates("tenant", "aril_tenant_prompt_tokens_total"))
        add("jobs", span.rates("tenant", "aril_tenant_jobs_total"))
    return sorted(
        rows.values(),
        key=lambda row: (row.name == OTHER, -row.tokens, -row.running, -row.waiting, row.name),
    )


def _adapters(spans: Sequence[Span]) -> list[AdapterRow]:
    rows: defaultdict[str, AdapterRow] = defaultdict(lambda: AdapterRow(name=""))
    for span in spans:
        for labels, there in (span.now.series("aril_adapter_loaded") or {}).items():
            told = dict(labels)
            name = told.get("adapter_name", OTHER)
            rows[name].device += int(there > 0 and told.get("level") == "device")
            rows[name].host += int(there > 0 and told.get("level") == "host")
        for name, rate in span.rates("adapter_name", "aril_adapter_jobs_total").items():
            rows[name].jobs += rate
    for name, row in rows.items():
        row.name = name
    return sorted(
        rows.values(),
        key=lambda row: (row.name == OTHER, -row.jobs, -row.device, -row.host, row.name),
    )

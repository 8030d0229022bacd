"""Rows of workers, tenants and adapters, out of pages that tell more or less."""

from __future__ import annotations

import inspect
import re

from aril.top import view
from aril.top.page import Page, Span
from aril.top.view import OTHER, WorkerRow, group_of, worker_row
from aril.worker.observe.metrics import Metrics

BEFORE = """\
aril_tokens_total 100
aril_step_rows_sum 50
aril_step_rows_count 10
aril_tenant_tokens_total{tenant="acme"} 100
aril_tenant_tokens_total{tenant="_other"} 0
aril_adapter_jobs_total{adapter_name="acme/terse"} 5
"""
NOW = """\
aril_ready 1
aril_draining 0
aril_standby 0
aril_partitions 4
aril_running_jobs 12
aril_backlog_jobs 3
aril_unread_jobs 1500
aril_waiting_tokens 900
aril_claims_total 7
aril_kv_blocks 200
aril_kv_blocks_used 50
aril_tokens_total 700
aril_step_rows_sum 160
aril_step_rows_count 20
aril_tenant_tokens_total{tenant="acme"} 140
aril_tenant_tokens_total{tenant="_other"} 400
aril_tenant_running_jobs{tenant="zeta"} 2
aril_tenant_running_jobs{tenant="acme"} 1
aril_tenant_waiting_jobs{tenant="acme"} 3
aril_adapter_jobs_total{adapter_name="acme/terse"} 9
aril_adapter_loaded{adapter_name="acme/terse",level="device"} 1
aril_adapter_loaded{adapter_name="acme/terse",level="host"} 1
aril_adapter_loaded{adapter_name="zeta/x",level="device"} 0
aril_adapter_loaded{adapter_name="zeta/x",level="host"} 1
"""


def span(now: str = NOW, before: str | None = BEFORE) -> Span:
    """Return two looks at one worker, two seconds apart."""
    return Span(None if before is None else Page.parse(before), Page.parse(now), 2.0)


def state(page: str) -> str:
    """Return what a worker is called that tells this."""
    return worker_row("w", span(page)).state


def test_a_worker_tells_what_it_does() -> None:
    """Gauges as they are, counters as rates, histograms as means of the time between."""
    row = worker_row("w:1", span())
    assert (row.state, row.partitions, row.running, row.waiting) == ("ready", 4, 12, 3)
    assert (row.lag, row.waiting_tokens, row.takeovers, row.kv) == (1500, 900, 7, 0.25)
    assert (row.tokens, row.rows) == (300, 11)
    assert (row.adapters, row.first_token, row.jobs, row.problem) == (None, None, None, "")


def test_one_that_tells_little_is_shown_with_that() -> None:
    """An older worker has other names; a figure that is not there is not 0."""
    row = worker_row("w:1", span("aril_partitions 2", None))
    assert row == WorkerRow(address="w:1", state="ready", partitions=2)
    assert worker_row("w:1", span("aril_kv_blocks 0\naril_kv_blocks_used 0")).kv is None


def test_states() -> None:
    """What matters most is said."""
    assert state("aril_ready 1\naril_standby 1") == "stands by"
    assert state("aril_ready 0\naril_standby 0") == "not ready"
    assert state("aril_ready 0\naril_draining 1") == "draining"


def test_who_does_not_answer_has_a_row_and_adds_nothing() -> None:
    """Sums are over those that tell; of what nobody tells there is none."""
    group = group_of({"a": span(), "b": span(), "c": "nobody answers"})
    assert [row.problem for row in group.workers] == ["", "", "nobody answers"]
    assert (group.total("tokens"), group.total("lag")) == (600, 3000)
    assert group.total("jobs") is None
    assert group.seconds == 2.0
    none = group_of({"c": "nobody answers"})
    assert (none.total("tokens"), none.seconds, none.tenants, none.adapters) == (None, 0.0, [], [])


def test_tenants_are_added_up_over_workers_the_busiest_first() -> None:
    """All others together stand last, however busy."""
    acme, zeta, other = group_of({"a": span(), "b": span()}).tenants
    assert (acme.name, acme.tokens, acme.running, acme.waiting) == ("acme", 40, 2, 6)
    assert (zeta.name, zeta.tokens, zeta.running) == ("zeta", 0, 4)
    assert (other.name, other.tokens) == (OTHER, 400)


def test_adapters_are_counted_where_they_are() -> None:
    """In how many workers' slots, and memories."""
    terse, other = group_of({"a": span(), "b": span()}).adapters
    assert (terse.name, terse.device, terse.host, terse.jobs) == ("acme/terse", 2, 2, 4)
    assert (other.name, other.device, other.host, other.jobs) == ("zeta/x", 0, 2, 0)


def test_every_name_is_one_that_workers_have() -> None:
    """A figure whose metric was renamed would be missing in silence."""
    names = set(re.findall(r'"(aril_\w+)"', inspect.getsource(view)))
    assert names
    assert names <= {each.name for each in Metrics().families.made}

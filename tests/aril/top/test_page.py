"""Pages of metrics, and what has changed between two of them."""

from __future__ import annotations

import pytest
from prometheus_client import generate_latest

from aril.top.page import Page, Span
from aril.worker.observe.metrics import Metrics

TEXT = """\
# HELP aril_jobs_total Jobs ended.
# TYPE aril_jobs_total counter
aril_jobs_total{end="stop"} 3.0
aril_jobs_total{end="length"} 1.0
# TYPE aril_kv_blocks gauge
aril_kv_blocks 100.0
aril_clock_skew_seconds NaN
"""


def span(before: str | None, now: str, seconds: float = 2.0) -> Span:
    """Return two pages of one worker."""
    return Span(None if before is None else Page.parse(before), Page.parse(now), seconds)


def test_a_page_is_read_by_name_and_label() -> None:
    """Sums over series; a name that is not there is none, one of several is enough."""
    page = Page.parse(TEXT)
    assert page.total("aril_jobs_total") == 4
    assert page.by("end", "aril_jobs_total") == {"stop": 3, "length": 1}
    assert page.by("tenant", "aril_jobs_total") == {}
    assert page.total("aril_new_name", "aril_kv_blocks") == 100
    assert page.total("aril_other") is None
    assert page.by("end", "aril_other") == {}


def test_a_figure_that_is_no_number_is_none() -> None:
    """It would spoil every sum that it is part of."""
    assert Page.parse(TEXT).total("aril_clock_skew_seconds") is None


@pytest.mark.parametrize("text", ["<html><b>hi</b></html>", "aril_x{", "{}", 'x{a="b"} y'])
def test_what_is_no_page_is_refused(text: str) -> None:
    """Somebody else may answer at that address."""
    with pytest.raises(ValueError, match="no page of metrics"):
        Page.parse(text)


def test_a_rate_is_what_came_meanwhile() -> None:
    """Of all series together, or by a label; one that is new had counted nothing."""
    found = span('c_total{a="x"} 4', 'c_total{a="x"} 10\nc_total{a="y"} 2')
    assert found.rate("c_total") == 4
    assert found.rates("a", "c_total") == {"x": 3, "y": 1}
    assert span("", "c_total 6").rate("c_total") == 3


def test_a_counter_that_fell_began_anew() -> None:
    """With its process: what it shows has come since, and never less than nothing."""
    assert span("c_total 1000", "c_total 8").rate("c_total") == 4
    assert span('c_total{a="x"} 9', 'c_total{a="y"} 8').rates("a", "c_total") == {"y": 4}


def test_without_two_pages_there_is_no_rate() -> None:
    """Nor without a time between them, or a name that both could have."""
    assert span(None, "c_total 8").rate("c_total") is None
    assert span("c_total 8", "c_total 8", 0.0).rate("c_total") is None
    assert span("c_total 8", "c_total 8", 0.0).rates("a", "c_total") == {}
    assert span("c_total 8", "d_total 8").rate("c_total") is None


def test_a_mean_is_of_what_came_meanwhile() -> None:
    """Not since the start; of nothing there is none."""
    before = "h_sum 100\nh_count 10"
    assert span(before, "h_sum 130\nh_count 20").mean("h") == 3
    assert span(before, before).mean("h") is None
    assert span(None, before).mean("h") is None
    assert span(before, "").mean("h") is None


def test_a_workers_own_page_is_read() -> None:
    """As it is served."""
    metrics = Metrics()
    metrics.jobs.labels(end="stop").inc(2)
    page = Page.parse(generate_latest(metrics.registry).decode())
    assert page.by("end", "aril_jobs_total") == {"stop": 2}

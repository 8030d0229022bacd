"""The families as they are scraped: names, kinds, labels, and who may be named."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as strict
from prometheus_client.parser import text_string_to_metric_families

from aril.worker.observe.distribution import Distribution
from aril.worker.observe.engine_stats import EngineStats
from aril.worker.observe.metrics import ANSWERED_BEFORE, Ended, Lag, Metrics
from aril.worker.observe.metrics.bounded_names import OTHER
from aril.worker.observe.metrics.engine import COUNTERS, GAUGES, HISTOGRAMS
from aril.worker.observe.metrics.page import Collected
from aril.worker.observe.metrics.queue import MOST_PARTITIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

DAY = 86_400
ENDED = Ended(
    tenant="acme",
    end="stop",
    failed=False,
    seconds=3.0,
    prompt_tokens=10,
    tokens=5,
    operation="chat",
    first_token_seconds=0.2,
    token_seconds=0.02,
)


def value(metrics: Metrics, name: str, labels: Mapping[str, str] | None = None) -> float | None:
    """Return one sample; None where there is none."""
    return metrics.registry.get_sample_value(name, dict(labels or {}))


def scraped(metrics: Metrics) -> dict[str, set[str]]:
    """Return the names of all samples with those of their labels."""
    found: dict[str, set[str]] = {}
    for metric in Collected(metrics.registry).collect():
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def used() -> Metrics:
    """Return metrics of which each family has a series."""
    metrics = Metrics()
    stats = EngineStats(kv_blocks=4, slots=2, in_slots=("d",))
    metrics.engine.watch(lambda: stats)
    metrics.describe_build(model="tiny", dtype="float32", assignor="sticky")
    metrics.ended(ENDED)
    metrics.adapters.begun("acme/terse", "d")
    metrics.behind({("jobs", 0): Lag(2, 1)})
    metrics.dead_letters.labels(reason="x").inc()
    metrics.constraints.labels("cached").inc()
    metrics.topics_refused.labels(kind="jobs").set(0)
    metrics.rebalances_asked.labels("open").inc()
    return metrics


def test_what_is_declared_is_what_is_scraped() -> None:
    """Else the reference, which is made from what is declared, would be of something else."""
    metrics = used()
    made = metrics.families.made
    found = {
        name: labels
        for name, labels in scraped(metrics).items()
        if name.startswith(("aril_", "gen_ai_"))
    }
    expected: dict[str, set[str]] = {}
    for family in made:
        labels = set(family.labels)
        if family.kind == "histogram":
            expected |= {f"{family.name}{end}": labels for end in ("_count", "_sum")}
            expected[f"{family.name}_bucket"] = labels | {"le"}
        else:
            expected[family.name] = labels
    assert found == expected
    assert len({family.name for family in made}) == len(made)
    assert all(family.text.endswith(".") for family in made)


def test_names_follow_the_conventions() -> None:
    """Counters and nothing else end in `_total`; a histogram has its unit in its name."""
    for family in Metrics().families.made:
        assert family.name.startswith(("aril_", "gen_ai_server_"))
        assert family.name.endswith("_total") == (family.kind == "counter")


def test_only_bounded_sets_are_labels() -> None:
    """Closed ones, and the four whose number has a bound of its own."""
    bounded = {"tenant", "adapter_name", "topic", "partition"}
    closed = {"end", "kind", "level", "outcome", "reason", "why", "error_type"}
    found = {
        label
        for family in Metrics().families.made
        if family.kind != "info"
        for label in family.labels
        if not label.startswith("gen_ai_")
    }
    assert found == bounded | closed


def test_what_may_last_a_day_is_measured_up_to_one() -> None:
    """A job may wait as long as ARIL_MAX_JOB_AGE says."""
    reach = {each.name: each.buckets[-1] for each in Metrics().families.made if each.buckets}
    for name in ("queue", "ttft", "job", "tenant_ttft"):
        assert reach[f"aril_{name}_seconds"] == DAY


def test_the_engines_counts_are_counters_read_at_a_scrape() -> None:
    """They rise as the engine's do, and there are none before there is an engine."""
    metrics = Metrics()
    assert value(metrics, "aril_preemptions_total") is None
    stats = EngineStats(kv_blocks=8, kv_blocks_used=2, slots=2, preemptions=3)
    metrics.engine.watch(lambda: stats)
    assert value(metrics, "aril_preemptions_total") == 3
    assert value(metrics, "aril_kv_cache_usage_ratio") == 0.25
    stats = replace(stats, preemptions=5)
    stats.step_rows.observe(3)
    assert value(metrics, "aril_preemptions_total") == 5
    assert value(metrics, "aril_step_rows_bucket", {"le": "2.0"}) == 0
    assert value(metrics, "aril_step_rows_bucket", {"le": "4.0"}) == 1


def test_each_family_of_the_engine_is_a_field_of_what_it_says() -> None:
    """A name that there is not would only be missed at a scrape."""
    names = {each.name for each in fields(EngineStats)}
    assert names >= COUNTERS.keys() | GAUGES.keys() | HISTOGRAMS.keys()


def test_a_distribution_counts_as_prometheus_does() -> None:
    """A bound belongs to its bucket; what is above all of them is in the last."""
    kept = Distribution((1, 2))
    for each in (0.5, 1, 1.5, 7):
        kept.observe(each)
    assert kept.buckets() == [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)]
    assert kept.total == 10.0


def test_a_job_is_counted_by_tenant_and_by_the_conventions() -> None:
    """Once each; what stood already was counted by who wrote it."""
    metrics = Metrics()
    metrics.gen_ai.model = "tiny"
    metrics.ended(ENDED)
    metrics.ended(replace(ENDED, end=ANSWERED_BEFORE, first_token_seconds=None))
    assert value(metrics, "aril_jobs_total", {"end": "stop"}) == 1
    assert value(metrics, "aril_jobs_total", {"end": ANSWERED_BEFORE}) == 1
    assert value(metrics, "aril_job_seconds_count") == 1
    assert value(metrics, "aril_tenant_jobs_total", {"tenant": "acme", "end": "stop"}) == 1
    assert value(metrics, "aril_tenant_prompt_tokens_total", {"tenant": "acme"}) == 10
    assert value(metrics, "aril_tenant_tokens_total", {"tenant": "acme"}) == 5
    assert value(metrics, "aril_tenant_ttft_seconds_count", {"tenant": "acme"}) == 1
    labels = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "aril",
        "gen_ai_request_model": "tiny",
        "gen_ai_response_model": "tiny",
    }
    duration = "gen_ai_server_request_duration_seconds_count"
    assert value(metrics, duration, labels | {"error_type": ""}) == 1
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", labels) == 0.2
    assert value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", labels) == 0.02


def test_a_failed_job_has_a_duration_and_no_pace() -> None:
    """The conventions' first token and time per token are of successful answers."""
    metrics = Metrics()
    metrics.ended(replace(ENDED, end="internal", failed=True))
    page = scraped(metrics)
    assert "error_type" in page["gen_ai_server_request_duration_seconds_count"]
    assert "gen_ai_server_time_to_first_token_seconds_count" not in page
    assert "gen_ai_server_time_per_output_token_seconds_count" not in page


def test_tenants_beyond_the_bound_are_one() -> None:
    """The heaviest keep their names; rates of all labels add up to the whole."""
    metrics = Metrics(names=2)
    for number, tenant in enumerate(("a", "b", "c", "d")):
        metrics.moved(tenant, 100, None, "waiting")
        metrics.ended(replace(ENDED, tenant=tenant, tokens=1_000 - number))
    assert value(metrics, "aril_tenant_tokens_total", {"tenant": "a"}) == 1_000
    assert value(metrics, "aril_tenant_tokens_total", {"tenant": "c"}) is None
    assert value(metrics, "aril_tenant_tokens_total", {"tenant": OTHER}) == 998 + 997
    assert value(metrics, "aril_tenant_waiting_jobs", {"tenant": "b"}) == 1
    assert value(metrics, "aril_tenant_waiting_jobs", {"tenant": OTHER}) == 2
    metrics.ended(replace(ENDED, tenant="d", tokens=2_000, end="length"))
    assert value(metrics, "aril_tenant_tokens_total", {"tenant": "d"}) == 2_000
    assert value(metrics, "aril_tenant_tokens_total", {"tenant": "b"}) is None
    assert value(metrics, "aril_tenant_jobs_total", {"tenant": "b", "end": "stop"}) is None
    assert value(metrics, "aril_tenant_ttft_seconds_count", {"tenant": "b"}) is None


def test_no_tenant_and_no_adapter_is_named_where_none_may_be() -> None:
    """With 0 there is not even a series of all together."""
    metrics = Metrics(names=0)
    metrics.engine.watch(lambda: EngineStats(kv_blocks=1, slots=1, in_slots=("d",)))
    metrics.moved("acme", 100, None, "waiting")
    metrics.ended(ENDED)
    metrics.adapters.begun("acme/terse", "d")
    page = scraped(metrics)
    assert not [name for name, labels in page.items() if labels & {"tenant", "adapter_name"}]
    assert value(metrics, "aril_waiting_tokens") == 100


def test_adapters_are_told_by_where_they_are() -> None:
    """In a slot, in host memory, or both; those without a name are counted."""
    metrics = Metrics(names=1)
    stats = EngineStats(kv_blocks=1, slots=2, in_slots=("d1", "d2"), in_memory=("d1", "d3", "d4"))
    metrics.engine.watch(lambda: stats)
    metrics.adapters.begun("acme/terse", "d1")
    metrics.adapters.begun("zeta/long", "d2")
    loaded = "aril_adapter_loaded"
    assert value(metrics, loaded, {"adapter_name": "acme/terse", "level": "device"}) == 1
    assert value(metrics, loaded, {"adapter_name": "acme/terse", "level": "host"}) == 1
    assert value(metrics, loaded, {"adapter_name": OTHER, "level": "device"}) == 1
    assert value(metrics, loaded, {"adapter_name": OTHER, "level": "host"}) == 2
    assert value(metrics, "aril_adapter_jobs_total", {"adapter_name": "acme/terse"}) == 1
    assert value(metrics, "aril_adapter_jobs_total", {"adapter_name": OTHER}) == 1
    metrics.adapters.begun("zeta/long", "d2")
    assert value(metrics, loaded, {"adapter_name": "zeta/long", "level": "device"}) == 1
    assert value(metrics, loaded, {"adapter_name": "acme/terse", "level": "device"}) is None


def test_partitions_are_named_by_their_lag() -> None:
    """The worst ones; all others are one series, and nothing is lost of the sum."""
    metrics = Metrics()
    metrics.behind({("jobs", n): Lag(n, n // 2) for n in range(MOST_PARTITIONS + 3)})
    lag = "aril_partition_lag_jobs"
    assert value(metrics, lag, {"topic": "jobs", "partition": "102"}) == 102
    assert value(metrics, lag, {"topic": "jobs", "partition": "2"}) is None
    assert value(metrics, lag, {"topic": OTHER, "partition": ""}) == 0 + 1 + 2
    assert value(metrics, "aril_unread_jobs") == sum(n // 2 for n in range(103))
    metrics.behind({})
    assert value(metrics, lag, {"topic": OTHER, "partition": ""}) is None


def test_time_without_partitions_is_from_the_first_loss_to_the_next_assignment() -> None:
    """A first assignment ends no such time."""
    metrics = Metrics()
    metrics.assigned(10.0)
    assert value(metrics, "aril_rebalance_seconds_count") == 0
    metrics.partitions_gone(20.0)
    metrics.partitions_gone(21.0)
    metrics.assigned(23.5)
    metrics.assigned(30.0)
    assert value(metrics, "aril_rebalance_seconds_sum") == 3.5
    assert value(metrics, "aril_rebalance_seconds_count") == 1
    assert value(metrics, "aril_rebalances_total") == 3


@pytest.mark.parametrize("accepted", [True, False])
def test_commits_are_timed_and_failures_counted(*, accepted: bool) -> None:
    """A commit that failed took its time, too."""
    metrics = Metrics()
    metrics.committed(0.25, accepted)
    assert value(metrics, "aril_commit_seconds_sum") == 0.25
    assert value(metrics, "aril_commit_failures_total") == (0 if accepted else 1)


def test_the_process_is_on_the_page() -> None:
    """Memory, garbage, versions, as every exporter of Python tells them."""
    found = scraped(used())
    assert {"python_info", "python_gc_objects_collected_total", "aril_build_info"} <= found.keys()
    assert "process_resident_memory_bytes" in found
    assert {"version", "python", "torch", "transformers", "model", "dtype", "assignor"} == found[
        "aril_build_info"
    ]


def test_openmetrics_takes_every_family() -> None:
    """Its rules are stricter: a page that breaks one is refused whole."""
    page = openmetrics.generate_latest(Collected(used().registry)).decode()
    names = {each.name for each in strict(page)}
    assert {"aril_jobs", "aril_build", "aril_step_rows", "aril_partition_lag_jobs"} <= names
    assert "gen_ai_server_request_duration_seconds" in names


def test_a_page_has_no_times_of_creation() -> None:
    """They would be as many series again as counters and histograms."""
    page = generate_latest(Collected(used().registry)).decode()
    names = [each.name for each in text_string_to_metric_families(page)]
    assert "aril_jobs" in names
    assert not [name for name in names if name.endswith("_created")]

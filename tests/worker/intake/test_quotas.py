"""Limits of tenants: jobs beyond them are refused or wait, those of others go on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import ErrorCode, ErrorEvent, Job
from aril.worker.adapters import AdapterWeights
from aril.worker.engine.request import Output
from aril.worker.intake.quotas import FORGET_AT, Bucket, Quotas
from aril.worker.intake.tenant_limits import TenantLimits
from aril.worker.job import Partition
from tests.support.entries import entry_of
from tests.support.harness import Harness

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def limits_of(tmp_path: Path) -> Any:
    """Return what makes limits of a text."""

    def make(text: str) -> TenantLimits:
        file = tmp_path / "limits.toml"
        file.write_text(text)
        return TenantLimits(file)

    return make


def send(harness: Harness, *names: str, **given: Any) -> None:
    """Send jobs of the tenant that a name begins with."""
    for name in names:
        tenant = {"a": "acme", "z": "zeta"}[name[0]]
        harness.send(Job(id=name, tenant=tenant, prompt=name, **given))


def refusal(harness: Harness, name: str) -> ErrorEvent:
    """Return the error that a job ended in."""
    tenant = {"a": "acme", "z": "zeta"}[name[0]]
    terminal = harness.visible(tenant, name).terminal
    assert isinstance(terminal, ErrorEvent)
    return terminal


def test_a_bucket_holds_what_comes_in_a_while_and_may_owe() -> None:
    """It fills at its rate, to its size, and never by a clock that went back."""
    bucket = Bucket(rate=2, seconds=5, now=100)
    assert bucket.level == 10
    bucket.level -= 14
    assert bucket.fill(101) == -2
    assert bucket.seconds_until(1) == 1.5
    assert bucket.fill(90) == -2
    assert bucket.fill(200) == 10


async def test_jobs_beyond_what_may_wait_are_refused(limits_of: Any) -> None:
    """With the limit, what came, and when to come again; once some run there is room."""
    limits = limits_of("[tenants.acme]\nwaiting_jobs = 3")
    async with Harness(max_rows=1, limits=limits) as harness:
        send(harness, *(f"a{n}" for n in range(5)), *(f"z{n}" for n in range(5)))
        await harness.settle()
        error = refusal(harness, "a3")
        assert (error.code, error.limit, error.given) == (ErrorCode.OVERLOADED, 3, 4)
        assert error.retryable
        assert error.retry_after_ms == 1_000
        assert refusal(harness, "a4").code is ErrorCode.OVERLOADED
        assert all(harness.visible("zeta", f"z{n}").terminal is None for n in range(5))
        assert len(harness.running) > 0
        send(harness, "a5")
        await harness.settle()
        assert harness.visible("acme", "a5").terminal is None


async def test_bytes_that_wait_are_bounded_too(limits_of: Any) -> None:
    """One job of any size may wait only where it has room."""
    limits = limits_of("[tenants.acme]\nwaiting_bytes = 20000")
    async with Harness(limits=limits, max_rows=1) as harness:
        send(harness, "a0")
        harness.send(Job(id="a1", tenant="acme", prompt="x" * 10_000))
        await harness.settle()
        assert refusal(harness, "a1").limit == 20_000
        assert harness.running == ["a0"]


async def test_jobs_a_second_go_by_the_logs_times(limits_of: Any) -> None:
    """However late they are read: two are let in, and a third that came seconds later."""
    limits = limits_of("[tenants.acme]\njobs_per_second = 1\nburst_seconds = 2")
    async with Harness(limits=limits) as harness:
        for name, age in (("a0", 9_000), ("a1", 9_000), ("a2", 9_000), ("a3", 7_500)):
            harness.send(Job(id=name, tenant="acme", prompt=name), age_ms=age)
        await harness.settle()
        assert sorted(harness.running) == ["a0", "a1", "a3"]
        error = refusal(harness, "a2")
        assert error.limit == 1
        assert error.retry_after_ms is not None
        assert 900 <= error.retry_after_ms <= 1_000


async def test_jobs_that_were_there_before_are_not_refused(limits_of: Any) -> None:
    """Another worker may have begun them: they were let in already."""
    limits = limits_of(
        "[tenants.acme]\nwaiting_jobs = 1\njobs_per_second = 0.001\nburst_seconds = 1"
    )
    async with Harness(limits=limits) as harness:
        harness.assign(generation=4, end_offset=3)
        send(harness, "a0", "a1", "a2")
        await harness.until(lambda: len(harness.running) == 3)


async def test_tokens_a_second_are_those_computed(limits_of: Any) -> None:
    """Who has had more than its rate is refused, or waits, until that is over."""
    text = "[tenants.acme]\ntokens_per_second = 0.001\nburst_seconds = 5000\nover = 'refuse'"
    async with Harness(limits=limits_of(text)) as harness:
        send(harness, "a0")
        await harness.settle()
        harness.step(Output(harness.key_of("a0"), (1,) * 4, "x", finish="stop"))
        await harness.settle()
        send(harness, "a1", "z1")
        await harness.settle()
        assert harness.running == ["z1"]
        error = refusal(harness, "a1")
        assert error.message == "tenant: at most 0.001 tokens a second"
        assert error.retry_after_ms is not None
        assert error.retry_after_ms > 60_000


async def test_jobs_beyond_a_rate_wait_where_that_is_wished(limits_of: Any) -> None:
    """The others pass them, and they run as soon as they may."""
    limits = limits_of("[tenants.acme]\njobs_per_second = 20\nburst_seconds = 0.05\nover = 'wait'")
    async with Harness(limits=limits) as harness:
        send(harness, "a0", "a1", "z0")
        await harness.settle()
        assert sorted(harness.running) == ["a0", "z0"]
        await harness.until(lambda: "a1" in harness.running)


async def test_rows_are_bounded_and_hold_up_nobody_else(limits_of: Any) -> None:
    """A tenant has two of eight, others the rest; the next is in as soon as one ends."""
    async with Harness(limits=limits_of("[tenants.acme]\nrows = 2"), max_rows=8) as harness:
        send(harness, *(f"a{n}" for n in range(20)), *(f"z{n}" for n in range(6)))
        await harness.settle()
        assert sorted(harness.running) == ["a0", "a1", *(f"z{n}" for n in range(6))]
        harness.step(Output(harness.key_of("a0"), (1,), "x", finish="stop"))
        await harness.until(lambda: "a2" in harness.running)


async def test_adapters_in_use_are_bounded(limits_of: Any) -> None:
    """A tenant's third adapter waits, and what is behind it; another tenant's does not."""

    class Store:
        async def get(self, tenant: str, name: str) -> AdapterWeights:
            return AdapterWeights(name=name, digest=f"{tenant}/{name}", rank=1, modules={})

    limits = limits_of("[tenants.acme]\nadapters = 2")
    async with Harness(limits=limits, adapters=Store(), max_rows=8, slots=8) as harness:
        for number, adapter in enumerate("xyzx"):
            send(harness, f"a{number}", adapter=adapter)
        send(harness, "z0", adapter="x")
        await harness.settle()
        assert sorted(harness.running) == ["a0", "a1", "z0"]
        harness.step(Output(harness.key_of("a0"), (1,), "x", finish="stop"))
        await harness.until(lambda: "a2" in harness.running)


async def test_a_weight_is_a_larger_part_of_the_rows(limits_of: Any) -> None:
    """Three times the weight, three times the rows, if both want them."""
    async with Harness(limits=limits_of("[tenants.zeta]\nweight = 3"), max_rows=8) as harness:
        send(harness, *(f"a{n}" for n in range(20)))
        await harness.settle()
        send(harness, *(f"z{n}" for n in range(20)))
        wanted = ["a"] * 2 + ["z"] * 6
        await harness.until(lambda: sorted(each[0] for each in harness.running[:8]) == wanted)


@pytest.mark.parametrize("over", ["refuse", "wait"])
async def test_a_rate_of_less_than_a_job_in_a_burst_lets_a_job_in(
    limits_of: Any, over: str
) -> None:
    """A bucket that never held a whole job kept its tenant out for good."""
    limits = limits_of(f'[tenants.acme]\njobs_per_second = 0.01\nover = "{over}"')
    quotas = Quotas(limits)
    entry = entry_of("a", owned=True)
    assert quotas.admit(entry, 0.0) is None
    quotas.started("acme", 0.0)
    quotas.look(1_000.0)
    assert not quotas.held_back
    entry = entry_of("b", owned=True)
    entry.record = replace(entry.record, timestamp_ms=1_000_000)
    assert quotas.admit(entry, 1_000.0) is None


async def test_a_job_that_is_taken_over_starts_once(limits_of: Any) -> None:
    """It has a turn to be claimed and one to be prepared; its tenant pays for one."""
    limits = limits_of('[tenants.acme]\njobs_per_second = 1\nburst_seconds = 4\nover = "wait"')
    async with Harness(max_rows=8, limits=limits) as harness:
        harness.assign(generation=4, end_offset=3)
        send(harness, "a1", "a2", "a3")
        await harness.settle()
        assert sorted(harness.running) == ["a1", "a2", "a3"]
        send(harness, "a4")
        await harness.settle()
        assert "a4" in harness.running


def test_buckets_of_tenants_that_are_away_are_forgotten(limits_of: Any) -> None:
    """One that has filled up since says nothing, though nobody has looked at it."""
    quotas = Quotas(limits_of("[default]\njobs_per_second = 10"))
    for number in range(2 * FORGET_AT):
        entry = entry_of("a", owned=True)
        entry.tenant = f"t{number}"
        entry.record = replace(entry.record, timestamp_ms=number * 60_000)
        assert quotas.admit(entry, number * 60.0) is None
    assert len(quotas._sent) <= FORGET_AT


def test_partitions_that_are_read_out_of_step_are_one_stream(limits_of: Any) -> None:
    """A tenant within its rate is refused nothing because one of its partitions lags."""
    quotas = Quotas(limits_of("[tenants.acme]\njobs_per_second = 10\nburst_seconds = 2"))
    for partition in (0, 1):  # 4 jobs a second in each, the second one read behind the first
        for number in range(200):
            entry = entry_of("a")
            source = Partition("jobs", partition)
            entry.record = replace(entry.record, source=source, timestamp_ms=number * 250)
            quotas.admit(entry, 50.0)
    entry = entry_of("a", owned=True)
    entry.record = replace(entry.record, timestamp_ms=50_000)
    assert quotas.admit(entry, 50.0) is None


def test_what_is_read_again_after_a_rebalance_is_counted_once(limits_of: Any) -> None:
    """A tenant within its rate is refused nothing because its jobs were read twice."""
    quotas = Quotas(limits_of("[tenants.acme]\njobs_per_second = 10\nburst_seconds = 2"))
    for _ in range(3):  # assignments
        for number in range(200):
            entry = entry_of("a")
            entry.record = replace(entry.record, timestamp_ms=number * 250)
            quotas.admit(entry, 50.0)
    entry = entry_of("a", owned=True)
    entry.record = replace(entry.record, timestamp_ms=51_000)
    assert quotas.admit(entry, 51.0) is None

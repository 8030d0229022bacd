"""What a reply log that turns silent may hold until that is known: nobody else's turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aril.schemas import ClaimRecord, Job, ReleaseRecord
from aril.worker.batching import claims_in_flight
from aril.worker.batching.claims_in_flight import CLAIMS_PER_ROW
from aril.worker.engine.request import Output
from aril.worker.stages import Stage
from aril.worker.takeover.rule import History
from tests.support.harness import Harness
from tests.support.older_jobs import before, claim, job, kinds

if TYPE_CHECKING:
    import pytest

    from aril.worker.job import Entry

ROWS = 2
MANY = 3 * CLAIMS_PER_ROW * ROWS


def inherited(name: str, tenant: str) -> Job:
    """Return a job; all answers of its tenant are in one partition."""
    return Job(id=name, tenant=tenant, prompt=name, reply_partition=0)


def silence(harness: Harness, *tenants: str) -> asyncio.Event:
    """Let no append to these tenants' replies be answered until the event is set."""
    back = asyncio.Event()
    harness.writer.down |= {f"replies.{tenant}": back for tenant in tenants}
    return back


def claiming(harness: Harness, tenant: str) -> int:
    """Return how many of a tenant's jobs are being claimed."""
    stages = [each.stage for each in harness.state.entries if each.tenant == tenant]
    return stages.count(Stage.CLAIMING)


async def test_one_tenant_has_no_more_claims_under_way_than_there_are_rows() -> None:
    """However many it inherited: whoever's log answers is claimed and runs beside them."""
    async with Harness(max_rows=ROWS) as harness:
        harness.assign(generation=3, end_offset=MANY + 1)
        silence(harness, "acme")
        for number in range(MANY):
            harness.send(inherited(f"a{number}", "acme"))
        await harness.settle()
        assert claiming(harness, "acme") == ROWS
        harness.send(inherited("old", "zeta"))
        await harness.settle()
        assert harness.running == ["old"]
        harness.send(inherited("fresh", "zeta"))
        await harness.settle()
        assert harness.running == ["old", "fresh"]


async def test_claims_of_many_silent_logs_stop_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a moment without an answer they count for their own tenants only."""
    monkeypatch.setattr(claims_in_flight, "SLOW_SECONDS", 0.0)
    silent = [f"t{number}" for number in range(3 * CLAIMS_PER_ROW)]
    async with Harness(max_rows=ROWS, tenants=[*silent, "zeta"]) as harness:
        harness.assign(generation=3, end_offset=1_000)
        silence(harness, *silent)
        for tenant in silent:
            for number in range(2 * ROWS):
                harness.send(inherited(f"j{number}", tenant))
        for _ in range(4):
            await harness.settle()
        assert {claiming(harness, tenant) for tenant in silent} == {ROWS}
        harness.send(inherited("old", "zeta"))
        await harness.settle()
        assert harness.running == ["old"]


def suspect(harness: Harness) -> Entry:
    """Return the job that crashed two workers."""
    return next(each for each in harness.state.entries if each.job_id == "j1")


async def make_suspect(harness: Harness) -> None:
    """Have a job wait until the engine, which another tenant's job has, is empty."""
    harness.send(inherited("other", "zeta"))
    await harness.settle()
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"))
    harness.send(job())
    await harness.settle()
    assert kinds(harness) == ["claim", "claim", "claim", "release"]


def finish(harness: Harness, prompt: str) -> None:
    """Let the engine answer a job."""
    harness.step(Output(harness.key_of(prompt), (1,), "a", finish="stop"))


async def test_a_suspect_whose_log_turns_silent_gives_the_engine_back(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands aside, its log is tried without the engine, and then it runs alone after all."""
    monkeypatch.setattr("aril.worker.takeover.claims.FIRST_PATIENCE_SECONDS", 0.0)
    await make_suspect(harness)
    back = silence(harness, "acme")
    finish(harness, "other")
    await harness.settle()
    assert suspect(harness).stage is Stage.PARKED
    for name in ("x", "y"):
        harness.send(inherited(name, "zeta"))
    await harness.settle()
    assert harness.running == ["x", "y"]
    tried = harness.writer.tried.count("replies.acme")
    for _ in range(5):
        await harness.settle()
    assert harness.writer.tried.count("replies.acme") == tried  # one sounding, not answered yet
    assert suspect(harness).stage is Stage.PARKED

    harness.writer.down.clear()
    back.set()
    for _ in range(3):
        await harness.settle()
    assert suspect(harness).stage is Stage.WAITING
    assert harness.running == ["x", "y"]
    assert isinstance(harness.replies("acme", "j1")[-1], ReleaseRecord)
    finish(harness, "x")
    await harness.settle()
    assert harness.running == ["y"]
    finish(harness, "y")
    await harness.settle()
    last = harness.replies("acme", "j1")[-1]
    assert isinstance(last, ClaimRecord)
    assert last.alone
    assert harness.running == ["prompt of j1"]


async def test_an_alone_claim_that_landed_late_is_released(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tries the log stands behind it: should we crash beside others, it did not run alone."""
    monkeypatch.setattr("aril.worker.takeover.claims.FIRST_PATIENCE_SECONDS", 0.0)
    await make_suspect(harness)
    back = silence(harness, "acme")
    finish(harness, "other")
    await harness.settle()
    before(harness, claim((3, 2), "w1", alone=True))
    harness.writer.down.clear()
    back.set()
    harness.send(inherited("x", "zeta"))
    for _ in range(3):
        await harness.settle()
    history = History()
    for record in (*harness.replies("acme", "j1"), claim((9, 1), "w-c")):
        history.feed(record)
    assert (history.strikes, history.strikes_alone) == (2, 0)


async def test_each_claim_in_vain_is_waited_for_longer(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is only slow is believed in the end; others' claims have a request's time."""
    patience: list[float] = []
    append_all = harness.writer.append_all

    async def watched(*args: object, seconds: float, **more: object) -> list[int]:
        patience.append(seconds)
        return await append_all(*args, seconds=0.0, **more)  # type: ignore[arg-type]

    await make_suspect(harness)
    suspect(harness).kept_waiting = 1
    monkeypatch.setattr(harness.writer, "append_all", watched)
    monkeypatch.setattr(harness.writer, "append", append_all)
    silence(harness, "acme")
    finish(harness, "other")
    await harness.settle()
    assert patience == [2.0]
    assert suspect(harness).kept_waiting == 2


async def test_the_engine_is_not_emptied_for_a_suspect_whose_log_is_down(harness: Harness) -> None:
    """It stands aside while it waits, and others start beside what runs."""
    await make_suspect(harness)
    silence(harness, "acme")
    harness.lifecycle.parts.parking._logs.failed(suspect(harness).reply_log, 0.0)
    harness.send(inherited("x", "zeta"))
    await harness.settle()
    assert harness.running == ["other", "x"]
    assert suspect(harness).stage is Stage.PARKED

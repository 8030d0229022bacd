"""A reply log that does not answer: its jobs stand aside, nobody else waits, it is tried again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aril.schemas import Cancel, DoneEvent, ErrorCode, ErrorEvent, Job, encode_request
from aril.worker.engine.request import Output
from aril.worker.job import Partition
from aril.worker.replies.reply_logs import LAST_DELAY_SECONDS, ReplyLogs
from aril.worker.stages import Effect, Stage
from tests.support.harness import JOBS, Harness

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.worker.job import Entry

ROWS = 2
INHERITED = 6
GONE = "replies.acme"


def job(name: str, tenant: str = "acme") -> Job:
    """Return a job of a tenant; all of its answers are in one partition."""
    return Job(id=name, tenant=tenant, prompt=f"prompt of {name}", reply_partition=0)


def state_of(harness: Harness, name: str) -> Stage:
    """Return how far an unfinished job is."""
    return next(each for each in harness.state.entries if each.job_id == name).stage


async def finish(harness: Harness, *names: str) -> None:
    """Let the engine answer jobs."""
    for name in names:
        harness.step(Output(harness.key_of(f"prompt of {name}"), (1,), "a", finish="stop"))
    await harness.settle()


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harness]:
    """Run a worker that has inherited acme's jobs, and whose appends to acme do not return."""
    monkeypatch.setattr("aril.worker.effects.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.replies.reply_logs.FIRST_DELAY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.takeover.claims.FIRST_DELAY_SECONDS", 0.0)
    async with Harness(max_rows=ROWS) as harness:
        harness.assign(generation=3, end_offset=INHERITED)
        harness.writer.down[GONE] = asyncio.Event()
        for number in range(INHERITED):
            harness.send(job(f"a{number}"))
        await harness.settle()
        yield harness


async def test_claims_that_hang_hold_no_place(site: Harness) -> None:
    """While the broker says nothing the other tenant's jobs run, as many as there are rows."""
    assert state_of(site, "a0") is Stage.CLAIMING
    for name in ("z0", "z1"):
        site.send(job(name, "zeta"))
    await site.settle()
    assert sorted(site.running) == ["prompt of z0", "prompt of z1"]
    await finish(site, "z0", "z1")
    assert isinstance(site.visible("zeta", "z0", 0).terminal, DoneEvent)


async def test_a_log_that_failed_is_tried_by_one_job_at_a_time(site: Harness) -> None:
    """The others are parked: one claim for each look, not one for each job."""
    site.writer.down[GONE].set()
    await site.settle(rounds=5)
    before = site.writer.tried.count(GONE)
    for _ in range(10):
        site.lifecycle.tick()
        await site.settle(rounds=20)
    tried = site.writer.tried.count(GONE) - before
    assert 1 <= tried <= 2 * 10  # settling looks once more
    stages = [each.stage for each in site.state.entries]
    assert stages.count(Stage.PARKED) >= INHERITED - 1
    sample = site.metrics.registry.get_sample_value
    assert sample("aril_reply_logs_down") == 1.0
    assert (sample("aril_parked_jobs") or 0.0) >= INHERITED - 1
    assert site.lifecycle.parts.pending.bytes > 0


async def test_when_it_answers_again_all_go_on_each_once(site: Harness) -> None:
    """Nothing was lost meanwhile, and nothing is written twice."""
    site.writer.down[GONE].set()
    await site.settle()
    del site.writer.down[GONE]
    for _ in range(2 * INHERITED):
        await site.settle()
        for key, request in [*site.engine.requests.items()]:
            site.step(Output(key, (len(request.prompt_ids),), "a", finish="stop"))
            del site.engine.requests[key]
    await site.settle()
    assert site.state.position == INHERITED
    for number in range(INHERITED):
        stream = site.visible("acme", f"a{number}", 0)
        assert isinstance(stream.terminal, DoneEvent)
        assert len(stream.token_ids) == 1
    assert site.lifecycle.parts.pending.bytes == 0


async def test_a_parked_job_can_be_cancelled_and_is_told_when_it_can_be(site: Harness) -> None:
    """Its end is known at once, and written as soon as there is a log for it."""
    site.writer.down[GONE].set()
    await site.settle()
    site.send(encode_request(Cancel(id="a5", tenant="acme")))
    await site.settle()
    assert state_of(site, "a5") is Stage.CONDEMNED
    del site.writer.down[GONE]
    await site.settle()
    await site.settle()
    terminal = site.visible("acme", "a5", 0).terminal
    assert isinstance(terminal, ErrorEvent)
    assert terminal.code is ErrorCode.CANCELLED


async def test_a_job_that_runs_when_its_log_goes_frees_its_row(site: Harness) -> None:
    """Its stream breaks; it goes on behind what stands in the log once that is there again."""
    site.send(job("z0", "zeta"))
    await site.settle()
    site.writer.down["replies.zeta"] = asyncio.Event()
    site.writer.down["replies.zeta"].set()
    site.step(Output(site.key_of("prompt of z0"), (7,), "a"))
    await site.settle()
    assert site.running == []
    del site.writer.down["replies.zeta"]
    await site.settle()
    await site.settle()
    assert site.running == ["prompt of z0"]
    key = max(site.engine.requests)
    site.step(Output(key, (8,), "b", finish="stop"))
    await site.settle()
    stream = site.visible("zeta", "z0", 0)
    assert (stream.token_ids, stream.resets) == ([8], 0)


async def test_parked_jobs_are_dropped_with_their_partition(site: Harness) -> None:
    """They are somebody else's, and hold nothing here."""
    site.writer.down[GONE].set()
    await site.settle()
    site.revoke(site.state)
    await site.settle()
    assert site.lifecycle.parts.parking._parked == {}
    assert site.lifecycle.parts.claims._claimed == {}


def test_a_log_is_tried_less_and_less_often_until_it_works() -> None:
    """Delays double up to a bound; success ends it; a log that nobody waits for is forgotten."""
    logs, log = ReplyLogs(), Partition(GONE, 0)
    gaps, now = [], 0.0
    for _ in range(10):
        logs.failed(log, now)
        assert logs.is_down(log)
        assert logs.to_probe(now) == []
        begun = now
        while not logs.to_probe(now):
            now += 0.05
        gaps.append(round(now - begun, 3))
    assert gaps == sorted(gaps)
    assert gaps[-1] == pytest.approx(LAST_DELAY_SECONDS, abs=0.1)
    assert logs.to_probe(now) == []  # one at a time
    assert logs.worked(log)
    assert not logs.worked(log)
    assert not logs.is_down(log)
    logs.failed(log, now)
    logs.forget(log)
    assert len(logs) == 0


async def test_jobs_that_end_while_their_claims_hang_are_counted() -> None:
    """They are in no backlog: reading rests before they fill the memory."""
    async with Harness(max_rows=ROWS, lookahead_bytes=1 << 20) as harness:
        harness.assign(generation=3, end_offset=10_000)
        harness.writer.held = asyncio.Event()
        sent = 0
        while not harness.lifecycle.is_full(JOBS):
            harness.send(job(f"old{sent}"), age_ms=10 * 86_400_000)
            sent += 1
            await harness.settle(1)
            assert sent < 500
        assert harness.lifecycle.parts.claims.ending
        harness.writer.held.set()
        harness.writer.held = None
        await harness.settle()
        await harness.settle()
        assert harness.state.position == sent
        assert harness.lifecycle.parts.pending.bytes == 0
        assert not harness.lifecycle.parts.claims.ending


async def test_a_parked_job_is_not_read_back_for_any_more(site: Harness) -> None:
    """What a pass follows it for ends as it is parked: it begins anew when it is let go."""
    site.writer.down[GONE].set()
    for number in range(20):
        site.writer.down.pop(GONE, None)
        await site.settle(rounds=3)
        site.writer.down[GONE] = gone = asyncio.Event()
        gone.set()
        site.send(job(f"more{number}"))
        await site.settle(rounds=3)
    site.revoke(site.state)
    await site.settle()
    assert not site.lifecycle.parts.claims._ahead


async def test_a_job_that_trips_up_a_pass_takes_no_other_along(
    site: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was told is not claimed again, whatever a neighbour of the pass raises."""
    tripped: list[Entry] = []
    add_first = site.dispatcher.add_first

    def trips(entry: Entry) -> None:
        if entry.job_id == "a2":
            tripped.append(entry)
            raise RuntimeError("no")
        add_first(entry)

    monkeypatch.setitem(site.lifecycle._effects, Effect.WAIT_FIRST, trips)
    site.writer.down[GONE].set()
    await site.settle()
    del site.writer.down[GONE]
    done: set[int] = set()
    for _ in range(3 * INHERITED):
        await site.settle()
        for key in set(site.engine.requests) - done:
            done.add(key)
            site.step(Output(key, (1,), "a", finish="stop"))
    assert tripped
    assert {each.job_id for each in site.state.entries} == {"a2"}
    for number in {*range(INHERITED)} - {2}:
        assert isinstance(site.visible("acme", f"a{number}", 0).terminal, DoneEvent)

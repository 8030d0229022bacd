"""The service's rules, on logs that are lists: who is answered, and when an offset is done."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from aril.schemas import (
    Cancel,
    DoneEvent,
    ErrorCode,
    ErrorEvent,
    Job,
    JobError,
    Sampling,
    TokenLogprobs,
    encode_request,
)
from aril.worker.engine.request import Output
from aril.worker.job import Record
from aril.worker.queue.raw_batch import BATCH, Part
from aril.worker.replies.producer import AppendError
from aril.worker.stages import Event, Stage
from tests.support.harness import JOBS, REPLY_PARTITIONS, Harness


def job(name: str = "j1", *, tenant: str = "acme", **fields: Any) -> Job:
    """Return a job that anybody would accept."""
    fields.setdefault("prompt", f"prompt of {name}")
    return Job(id=name, tenant=tenant, **fields)


def end_of(harness: Harness, name: str, tenant: str = "acme") -> ErrorEvent:
    """Return the error that a job visibly ended with."""
    terminal = harness.visible(tenant, name).terminal
    assert isinstance(terminal, ErrorEvent)
    return terminal


async def test_a_job_is_answered_and_its_offset_done_when_the_terminal_is_acked() -> None:
    """Tokens, then the terminal, then the offset; nothing is committed before the ack."""
    async with Harness() as harness:
        harness.send(job(sampling=Sampling(seed=7), metadata={"trace": "x"}))
        await harness.settle()
        key = harness.key_of("prompt of j1")
        harness.step(Output(key, (5, 6), "he"))
        await harness.settle()
        assert harness.visible("acme", "j1").token_ids == [5, 6]
        harness.writer.held = asyncio.Event()
        harness.step(Output(key, (7,), "llo", finish="stop"))
        await harness.settle()
        assert harness.state.position == 0
        harness.writer.held.set()
        await harness.settle()
        stream = harness.visible("acme", "j1")
        assert (stream.token_ids, stream.text) == ([5, 6, 7], "hello")
        terminal = stream.terminal
        assert isinstance(terminal, DoneEvent)
        assert (terminal.seed, terminal.base, terminal.metadata) == (7, "tiny", {"trace": "x"})
        assert terminal.usage == (len("prompt of j1"), 3)
        assert stream.epoch == (3, 1)
        assert harness.state.position == 1


async def test_a_slow_broker_gets_fewer_larger_records() -> None:
    """Tokens that come while an append is under way travel together in the next record."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        key = harness.key_of("prompt of j1")
        harness.writer.held = asyncio.Event()
        for token in range(10):
            harness.step(Output(key, (token,), str(token)))
            await harness.settle(3)
        harness.writer.held.set()
        await harness.settle()
        assert [len(each.ids) for each in harness.replies("acme", "j1")] == [1, 9]  # type: ignore[union-attr] # all tokens
        assert harness.visible("acme", "j1").text == "0123456789"


async def test_text_that_comes_with_the_finish_is_in_the_terminal() -> None:
    """What the engine held back until the end is not lost when no token comes with it."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        key = harness.key_of("prompt of j1")
        harness.step(Output(key, (1,), "a"), Output(key, (), "b", finish="length"))
        await harness.settle()
        assert harness.visible("acme", "j1").text == "ab"


@pytest.mark.parametrize(
    ("asks", "continues"),
    [
        ({"prompt": "Hi"}, True),
        ({"token_ids": (72, 105)}, True),
        ({"messages": ({"role": "user", "content": "Hi"},)}, False),
        ({"messages": ({"role": "user", "content": "Hi"},), "continue_final_message": True}, True),
    ],
)
async def test_the_engine_knows_whose_text_an_answer_goes_on_in(
    asks: dict[str, Any], continues: bool
) -> None:
    """A raw prompt's, or that of a message that was left open; a turn begins anew."""
    async with Harness() as harness:
        harness.send(Job(id="j1", tenant="acme", **asks))
        await harness.settle()
        (request,) = harness.engine.requests.values()
        assert request.continues_text is continues


async def test_what_is_told_of_a_prompt_is_in_the_terminal() -> None:
    """It comes once, with the end, so that a take-over needs no part of it."""
    rows = (None, TokenLogprobs(-0.5, ((7, -0.25),)))
    async with Harness() as harness:
        harness.send(job(sampling=Sampling(prompt_logprobs=1)))
        await harness.settle()
        key = harness.key_of("prompt of j1")
        assert harness.engine.requests[key].sampling.prompt_logprobs == 1
        harness.step(Output(key, (1,), "a", finish="length", prompt_logprobs=rows))
        await harness.settle()
        terminal = harness.visible("acme", "j1").terminal
        assert isinstance(terminal, DoneEvent)
        assert terminal.prompt_logprobs == rows


async def test_what_is_told_of_a_prompt_is_not_kept_while_its_log_is_away() -> None:
    """It is megabytes, and the next attempt computes it again."""
    async with Harness() as harness:
        harness.send(job(sampling=Sampling(prompt_logprobs=1)))
        await harness.settle()
        (entry,) = harness.state.entries
        harness.writer.failures.append(AppendError("RequestTimedOutError", hopeless=False))
        rows = (None, TokenLogprobs(-1.0, ((5, -0.5),)))
        harness.step(Output(entry.key, (1,), "a", finish="length", prompt_logprobs=rows))
        assert entry.prompt_logprobs == rows
        await harness.settle()
        assert entry.stage is Stage.ARRIVED
        assert entry.prompt_logprobs is None


async def test_a_twin_is_done_with_the_first_and_never_answered() -> None:
    """The same bytes twice: one answer, and both offsets are done when it is."""
    async with Harness() as harness:
        harness.send(job())
        harness.send(job())
        await harness.settle()
        assert len(harness.engine.requests) == 1
        harness.step(Output(harness.key_of("prompt of j1"), (1,), "a", finish="stop"))
        await harness.settle()
        assert harness.state.position == 2
        harness.send(job())
        await harness.settle()
        assert harness.state.position == 3
        assert len(harness.replies("acme", "j1")) == 2
        assert harness.dead_letters == []


@pytest.mark.parametrize("finished", [False, True], ids=["running", "finished"])
async def test_another_job_under_a_known_id_is_put_aside(finished: bool) -> None:
    """Other bytes under a known identity are a dead letter, and the first answer is untouched."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        key = harness.key_of("prompt of j1")
        if finished:
            harness.step(Output(key, (1,), "a", finish="stop"))
            await harness.settle()
        harness.send(job(prompt="something else"))
        harness.send(b"\x83" + encode_request(job())[1:40])  # unreadable
        await harness.settle()
        assert b"duplicate_id" in {each[2]["aril-reason"] for each in harness.dead_letters}
        if not finished:
            harness.step(Output(key, (1,), "a", finish="stop"))
            await harness.settle()
        stream = harness.visible("acme", "j1")
        assert isinstance(stream.terminal, DoneEvent)
        assert stream.token_ids == [1]
        assert harness.state.position == 3


async def test_the_same_id_of_another_tenant_is_another_job() -> None:
    """Identity is tenant and id together."""
    async with Harness() as harness:
        harness.send(job(prompt="mine"))
        harness.send(job(tenant="zeta", prompt="theirs"))
        await harness.settle()
        assert {each.prompt_ids for each in harness.engine.requests.values()} == {
            tuple(b"mine"),
            tuple(b"theirs"),
        }


async def test_a_bad_job_of_a_known_tenant_gets_a_typed_error_and_a_dead_letter() -> None:
    """An attributable record is answered; being unusable, it is put aside as well."""
    async with Harness() as harness:
        value = msgpack.packb(msgpack.unpackb(encode_request(job())) | {"priority": "high"})
        harness.send(value)
        harness.send(job("good"))
        await harness.settle()
        assert len(harness.engine.requests) == 1
        assert end_of(harness, "j1").code is ErrorCode.INVALID_JOB
        [(key, kept, headers)] = harness.dead_letters
        assert (key, kept) == (b"jobs/0/0", value)
        assert headers["aril-code"] == b"invalid_job"
        assert headers["traceparent"] == b"00-1"
        assert headers["aril-key"] == b"key"
        assert b"prompt" not in headers["aril-message"]


async def test_an_unreadable_record_is_put_aside_and_nobody_is_told() -> None:
    """Bytes that name no tenant go to the dead letters as they are; the neighbour is served."""
    async with Harness() as harness:
        split = encode_request(job()).replace(b"prompt of", b"prompt\xffof")
        for value in (b"", None, b"\xc1", split):
            harness.send(value)
        harness.send(job("good"))
        await harness.settle()
        assert len(harness.dead_letters) == 4
        assert [name for name, _ in harness.writer.logs if name != "jobs.dlq"] == []
        assert len(harness.engine.requests) == 1
        assert harness.state.position == 4


async def test_an_unreadable_batch_is_put_aside_before_its_offset_is_finished() -> None:
    """Its raw bytes are the dead letter; only once that is acknowledged is the offset finished."""
    async with Harness() as harness:
        harness.writer.held = asyncio.Event()
        assert harness.state.read(7)
        part = Part(Record(JOBS, 7, 0, None, b"raw bytes", ()), BATCH, "a wrong checksum")
        harness.lifecycle.on_unreadable(harness.state, part)
        await harness.settle()
        assert harness.committable == 7
        harness.writer.held.set()
        await harness.settle()
        [(key, value, headers)] = harness.dead_letters
        assert (key, value) == (b"jobs/0/7", b"raw bytes")
        assert headers["aril-reason"] == b"unreadable_batch"
        assert headers["aril-message"] == b"a wrong checksum"
        assert harness.committable == 8
        count = harness.metrics.registry.get_sample_value("aril_unreadable_batches_total")
        assert count == 1


@pytest.mark.parametrize(
    ("fields", "code", "limit", "given"),
    [
        ({"sampling": Sampling(max_tokens=51)}, ErrorCode.LIMIT_EXCEEDED, 50, 51),
        ({"prompt": None, "token_ids": (1,) * 31}, ErrorCode.PROMPT_TOO_LONG, 30, 31),
        ({"adapter": "nobody"}, ErrorCode.UNKNOWN_ADAPTER, None, None),
        ({"reply_partition": REPLY_PARTITIONS}, ErrorCode.INVALID_JOB, 3, 4),
    ],
    ids=["max-tokens", "prompt", "adapter", "reply-partition"],
)
async def test_a_job_over_a_limit_is_told_which(
    fields: dict[str, Any], code: ErrorCode, limit: int | None, given: int | None
) -> None:
    """A valid job that cannot be served gets its error, no dead letter, and frees its offset."""
    async with Harness(max_new_tokens=50, max_prompt_tokens=30) as harness:
        fields = {"sampling": Sampling(max_tokens=50)} | fields
        harness.send(job(**fields))
        harness.send(job("good", sampling=Sampling(max_tokens=50)))
        await harness.settle()
        error = end_of(harness, "j1")
        assert (error.code, error.limit, error.given) == (code, limit, given)
        assert harness.dead_letters == []
        assert harness.state.position == 1
        assert len(harness.engine.requests) == 1


async def test_without_a_reply_topic_the_job_is_put_aside_and_nobody_waits() -> None:
    """A tenant without a reply topic cannot be told; the neighbour is served."""
    async with Harness() as harness:
        harness.send(job(tenant="nowhere"))
        harness.send(job("good"))
        await harness.settle()
        assert harness.dead_letters[0][2]["aril-reason"] == b"missing_reply_topic"
        assert len(harness.engine.requests) == 1
        assert harness.state.position == 1


@pytest.mark.parametrize("stage", ["running", "waiting", "arrived"])
async def test_a_cancel_ends_a_job_at_any_stage(stage: str) -> None:
    """The job ends in ``cancelled`` behind its tokens, and both offsets are done."""
    async with Harness(max_rows=1, max_step_tokens=16) as harness:
        harness.send(job("first"))
        harness.send(job("second"))
        harness.send(job("third"))
        victim = "first" if stage == "running" else "third"
        if stage != "arrived":
            await harness.settle()
        if stage == "running":
            harness.step(Output(harness.key_of("prompt of first"), (1, 2), "ab"))
        harness.send(encode_request(Cancel(id=victim, tenant="acme")))
        await harness.settle()
        error = end_of(harness, victim)
        assert error.code is ErrorCode.CANCELLED
        assert error.index == (2 if stage == "running" else 0)
        if stage == "running":
            assert harness.engine.cancelled == [1]
            assert harness.state.position == 1
        assert all(each.open for each in [harness.state.ledger] if each is not None)


async def test_a_cancel_for_nobody_is_done_at_once() -> None:
    """A cancel that comes after the answer, or for no job, changes nothing."""
    async with Harness() as harness:
        harness.send(encode_request(Cancel(id="j1", tenant="acme")))
        await harness.settle()
        assert harness.state.position == 1


async def test_a_deadline_ends_a_job_before_and_while_it_runs() -> None:
    """Counted from the log-append time: late at arrival, or while running."""
    async with Harness() as harness:
        harness.send(job("late", deadline_ms=100), age_ms=200)
        harness.send(job("slow", deadline_ms=60))
        await harness.settle()
        assert end_of(harness, "late").code is ErrorCode.DEADLINE_EXCEEDED
        assert end_of(harness, "late").limit == 100
        harness.step(Output(harness.key_of("prompt of slow"), (1,), "a"))
        await asyncio.sleep(0.08)
        harness.lifecycle.tick()
        await harness.settle()
        assert end_of(harness, "slow").index == 1
        assert harness.engine.requests == {}


async def test_an_engine_error_ends_one_job_only() -> None:
    """The neighbour in the same batch finishes."""
    async with Harness() as harness:
        harness.send(job("bad"))
        harness.send(job("good"))
        await harness.settle()
        bad, good = harness.key_of("prompt of bad"), harness.key_of("prompt of good")
        harness.step(
            Output(bad, error=JobError(ErrorCode.ADAPTER_INVALID, "no")),
            Output(good, (1,), "a", finish="stop"),
        )
        await harness.settle()
        assert end_of(harness, "bad").code is ErrorCode.ADAPTER_INVALID
        assert isinstance(harness.visible("acme", "good").terminal, DoneEvent)
        assert harness.state.position == 2


async def test_a_reply_that_can_never_be_written_is_put_aside() -> None:
    """A refused append (no right to write, record too large) does not loop for ever."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.writer.failures = [AppendError("TopicAuthorizationFailedError", hopeless=True)]
        harness.step(Output(harness.key_of("prompt of j1"), (1,), "a"))
        await harness.settle()
        assert harness.dead_letters[0][2]["aril-reason"] == b"reply_unwritable"
        assert harness.engine.requests == {}
        assert harness.state.position == 1


async def test_a_revoked_partition_stops_at_once_and_commits_nothing_more() -> None:
    """After a revoke nothing of its jobs is written or marked as finished, also when it returns."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        key = harness.key_of("prompt of j1")
        old = harness.state
        harness.writer.held = asyncio.Event()
        harness.step(Output(key, (1,), "a", finish="stop"))
        await harness.settle()
        harness.revoke(old)
        new = harness.assign(generation=4)
        harness.writer.held.set()
        harness.step(Output(key, (2,), "b"))
        await harness.settle()
        assert old.position == 0
        assert new.to_commit() is None
        assert harness.dispatcher.running == 0


async def test_a_tenant_topic_answers_for_its_own_tenant_only() -> None:
    """Where the topic names the tenant, a job that claims another is refused to the topic's."""
    async with Harness(jobs_topic="jobs.*", tenant_from="topic") as harness:
        harness.send(job(tenant="zeta"), topic="jobs.acme")
        await harness.settle()
        assert end_of(harness, "j1").code is ErrorCode.INVALID_JOB
        assert harness.replies("zeta", "j1") == []
        assert harness.dead_letters[0][2]["aril-reason"] == b"tenant_mismatch"


@pytest.mark.parametrize("crowded", [True, False])
async def test_a_partition_whose_done_list_is_full_serves_its_oldest_next(crowded: bool) -> None:
    """It can read nothing more until the oldest are finished, whoever's turn it would be."""
    async with Harness(max_rows=1) as harness:
        for number in range(4):
            harness.send(Job(id=f"first{number}", tenant="zeta", prompt="first"))
        await harness.settle()
        names = ["old", *(f"z{number}" for number in range(8))]
        for name in names:
            priority = -9 if name == "old" else 9
            harness.send(Job(id=name, tenant="zeta", prompt=name, priority=priority))
        assert harness.state.ledger is not None
        harness.state.ledger._body_bytes += 4_000 * crowded  # thousands of finished runs
        served: list[str] = []
        while len(served) < 13:
            harness.lifecycle.tick()
            await harness.settle()
            for key, request in [*harness.engine.requests.items()]:
                served.append(bytes(request.prompt_ids).decode())
                del harness.engine.requests[key]
                harness.step(Output(key, (1,), "a", finish="stop"))
        await harness.settle()
        served = [name for name in served if name != "first"]
        assert served.index("old") == (0 if crowded else 8)
        assert harness.committable == 13


async def test_a_job_that_the_worker_lost_track_of_ends_in_internal() -> None:
    """An event without a row is logged and counted; the job ends, its neighbour does not notice."""
    async with Harness() as harness:
        harness.bugs = 1
        harness.send(job())
        harness.send(job("j2"))
        await harness.settle()
        entry = harness.dispatcher.find(harness.key_of("prompt of j1"))
        assert entry is not None
        harness.lifecycle.happened(entry, Event.ROUTED)
        await harness.settle()
        assert end_of(harness, "j1").code is ErrorCode.INTERNAL
        assert harness.engine.cancelled == [entry.key]
        assert harness.running == ["prompt of j2"]
        assert harness.state.position == 1


async def test_a_job_whose_end_is_known_keeps_it_whatever_comes_without_a_row() -> None:
    """Nothing can be told twice: only the count tells."""
    async with Harness() as harness:
        harness.bugs = 1
        harness.send(job())
        await harness.settle()
        key = harness.key_of("prompt of j1")
        entry = harness.dispatcher.find(key)
        assert entry is not None
        harness.writer.held = asyncio.Event()
        harness.step(Output(key, (1,), "a", finish="stop"))
        harness.lifecycle.happened(entry, Event.CHOSEN)
        harness.writer.held.set()
        await harness.settle()
        assert isinstance(harness.visible("acme", "j1").terminal, DoneEvent)
        assert harness.state.position == 1


async def test_a_job_is_counted_once_however_often_it_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An append that failed is no second end."""
    monkeypatch.setattr("aril.worker.effects.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.replies.reply_logs.FIRST_DELAY_SECONDS", 0.0)
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.writer.failures.append(AppendError("RequestTimedOutError", hopeless=False))
        key = harness.key_of("prompt of j1")
        harness.step(Output(key, (1,), "a", finish="stop"))
        await harness.settle()
        await harness.settle()
        harness.step(Output(max(harness.engine.requests), (1,), "a", finish="stop"))
        await harness.settle()
        sample = harness.metrics.registry.get_sample_value
        assert sample("aril_jobs_total", {"end": "stop"}) == 1.0
        assert sample("aril_job_seconds_count") == 1.0


async def test_jobs_that_do_not_fit_into_a_batch_go_into_the_next_step() -> None:
    """Sixteen jobs in one window, of more tokens than a step: none waits until others end."""
    async with Harness(max_step_tokens=64, window_ms=20) as harness:
        for number in range(16):
            harness.send(job(f"j{number}"))
        await harness.settle()
        assert len(harness.engine.requests) == 16


async def test_a_stream_that_broke_off_here_goes_before_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stands still like one that another worker had begun: it gets the next row."""
    monkeypatch.setattr("aril.worker.effects.RETRY_SECONDS", 0.0)
    async with Harness(max_rows=1) as harness:
        harness.send(job("broken"))
        await harness.settle()
        for number in range(20):
            harness.send(job(f"late{number}", priority=1))
        await harness.settle()
        harness.writer.failures.append(AppendError("?", hopeless=False))
        harness.step(Output(harness.key_of("prompt of broken"), (1,), "a"))
        await harness.settle()
        for _ in range(8):  # first its log is tried again; a few are prepared already
            if "prompt of broken" in harness.running:
                break
            prompt = harness.running[0]
            harness.step(Output(harness.key_of(prompt), (1,), "a", finish="stop"))
            await harness.settle()
        assert "prompt of broken" in harness.running

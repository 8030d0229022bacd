"""The spans of a job's life, as OpenTelemetry's SDK is told of them."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from aril.schemas import Cancel, ErrorCode, Job, JobError, Sampling, encode_request
from aril.worker.engine.request import Output
from aril.worker.job import Record
from aril.worker.replies.producer import AppendError
from aril.worker.step_tracing import Step
from aril.worker.tracing import MOST_SPANS, JobTracing
from tests.support.harness import JOBS, Harness
from tests.support.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Sequence

PROMPT = "prompt"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01".encode()
LIFE = ["queue", "prepare", "window", "prefill", "decode", "send replies.{tenant}", "process jobs"]


@pytest.fixture
def spans() -> Spans:
    """Keep the spans of one worker."""
    return Spans()


def job(name: str = "j1", **fields: Any) -> Job:
    """Return a job that anybody would accept."""
    return Job(id=name, tenant="acme", **({"prompt": PROMPT} | fields))


def record(
    value: Job | bytes, headers: Sequence[tuple[str, bytes | None]] = (), *, age_ms: int = 0
) -> Record:
    """Return a job's record; its offset is given where it is put."""
    data = encode_request(value) if isinstance(value, Job) else value
    return Record(JOBS, 0, int(time.time() * 1_000) - age_ms, b"key", data, headers)


async def test_the_whole_life_of_a_job(spans: Spans) -> None:
    """One span a phase, each where the one before ends, all below the producer's."""
    async with spans.harness() as harness:
        harness.put(record(job(), [("traceparent", TRACEPARENT), ("tracestate", b"vendor=1")]))
        await harness.settle()
        await harness.answer(PROMPT, 1, 2, 3)
    assert spans.names == LIFE
    root, below = spans.root, spans.all[:-1]
    assert f"{root.context.trace_id:032x}" == TRACE
    assert f"{root.parent.span_id:016x}" == PARENT
    assert root.context.trace_state == {"vendor": "1"}
    assert {span.parent.span_id for span in below} == {root.context.span_id}
    assert {span.context.trace_id for span in below} == {root.context.trace_id}
    assert below[0].start_time == root.start_time
    assert [span.start_time for span in below[1:]] == [span.end_time for span in below[:-1]]
    assert root.end_time >= below[-1].end_time
    assert (root.kind.name, below[-1].kind.name) == ("CONSUMER", "CLIENT")
    assert {span.kind.name for span in below[:-1]} == {"INTERNAL"}
    assert root.status.status_code.name == "UNSET"
    told = dict(root.attributes)
    assert told["gen_ai.response.time_to_first_chunk"] > 0
    assert (
        told.items()
        >= {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": "jobs",
            "messaging.destination.partition.id": "0",
            "messaging.kafka.offset": 0,
            "messaging.consumer.group.name": "aril",
            "gen_ai.operation.name": "text_completion",
            "gen_ai.provider.name": "aril",
            "gen_ai.request.model": "tiny",
            "gen_ai.usage.input_tokens": len(PROMPT),
            "gen_ai.usage.output_tokens": 3,
            "gen_ai.response.finish_reasons": ("stop",),
            "aril.job": "j1",
            "aril.tenant": "acme",
            "aril.end": "stop",
        }.items()
    )
    assert dict(below[-1].attributes)["messaging.destination.name"] == "replies.acme"
    assert dict(spans.one("decode").attributes)["aril.tokens"] == 3


async def test_a_fresh_jobs_wait_begins_in_the_log(spans: Spans) -> None:
    """The root and its first span begin when the record was appended."""
    waiting = record(job(), age_ms=5_000)
    async with spans.harness() as harness:
        harness.put(waiting)
        await harness.settle()
        await harness.answer(PROMPT, 1)
    assert spans.root.start_time == waiting.timestamp_ms * 1_000_000
    assert spans.one("queue").start_time == spans.root.start_time


async def test_an_error_is_told_by_its_code(spans: Spans) -> None:
    """The root has it as its status; what the error says stays out."""
    async with spans.harness() as harness:
        harness.put(record(job()))
        await harness.settle()
        error = JobError(ErrorCode.LIMIT_EXCEEDED, f"not {PROMPT}")
        harness.step(Output(harness.key_of(PROMPT), error=error))
        await harness.settle()
    root = spans.root
    assert root.status.status_code.name == "ERROR"
    assert root.status.description == "limit_exceeded"
    assert root.attributes["error.type"] == root.attributes["aril.end"] == "limit_exceeded"
    assert "decode" not in spans.names
    assert not root.events


async def test_a_refused_record_has_spans_too(spans: Spans) -> None:
    """It waits for where to tell of it, is told an error, and its record is put aside."""
    bad = encode_request(job()).replace(b"prompt", b"promqt", 1)
    async with spans.harness() as harness:
        harness.put(record(bad))
        await harness.settle()
    assert spans.names == ["queue", "send replies.{tenant}", "send jobs.dlq", "process jobs"]
    assert spans.root.status.description == "invalid_job"
    assert spans.one("send jobs.dlq").attributes["aril.reason"]


@pytest.mark.parametrize("headers", [[], [("traceparent", TRACEPARENT)]])
async def test_a_take_over_is_one_trace_across_two_workers(
    headers: list[tuple[str, bytes | None]],
) -> None:
    """With a parent or without: the second says whose job it was, and is linked to that span."""
    first, second = Spans("w1"), Spans("w2")
    moving = record(job(), headers)
    async with first.harness() as harness:
        harness.put(moving)
        await harness.settle()
        await harness.answer(PROMPT, 1, 2, finish=False)
        writer = harness.writer
        harness.revoke(harness.state)
        harness.assign(generation=4, source=JOBS._replace(partition=1))  # ours is another's now
        await harness.settle()
    assert first.root.attributes["aril.end"] == "dropped"
    assert first.root.status.status_code.name == "UNSET"
    async with second.harness(writer) as harness:
        harness.assign(generation=4, end_offset=1)
        harness.put(moving)
        await harness.until(lambda: bool(harness.running))
        await harness.answer(PROMPT, 3)
        assert harness.visible("acme", "j1").token_ids == [1, 2, 3]
    theirs, ours = first.root, second.root
    assert theirs.context.trace_id == ours.context.trace_id
    assert theirs.context.span_id != ours.context.span_id
    assert ours.attributes["aril.taken_from"] == "w1"
    assert ours.attributes["aril.inherited_tokens"] == 2
    (link,) = ours.links
    assert link.context.trace_id == theirs.context.trace_id
    assert link.context.span_id == theirs.context.span_id
    assert ours.start_time > theirs.start_time
    claim = second.one("claim")
    assert claim.attributes["aril.taken_from"] == "w1"
    assert claim.attributes["messaging.destination.name"] == "replies.acme"
    where = claim.attributes["messaging.kafka.offset"]
    log = writer.logs["replies.acme", int(claim.attributes["messaging.destination.partition.id"])]
    assert b"claim" in (log[where][1] or b"")
    assert dict(second.one("prefill").attributes)["aril.resumed_tokens"] == 2


async def test_a_job_that_nobody_began_was_taken_from_nobody(spans: Spans) -> None:
    """It is claimed, and its wait was all its own."""
    waiting = record(job(), age_ms=60_000)
    async with spans.harness() as harness:
        harness.assign(generation=4, end_offset=1)
        harness.put(waiting)
        await harness.until(lambda: bool(harness.running))
        await harness.answer(PROMPT, 1)
    assert spans.names == ["queue", "claim", *LIFE]
    assert not spans.root.links
    assert "aril.taken_from" not in spans.root.attributes
    assert spans.root.start_time == waiting.timestamp_ms * 1_000_000


async def test_a_displaced_job_shows_its_wait(spans: Spans) -> None:
    """It decodes, waits for a row, and decodes on; the two are told apart."""
    async with spans.harness(max_rows=1) as harness:
        harness.put(record(job("a")))
        await harness.settle()
        await harness.answer(PROMPT, 1, finish=False)
        (entry,) = harness.state.entries
        harness.lifecycle.parts.dispatcher._feed._displaced(entry, True)  # noqa: FBT003 - it had a row
        await harness.until(lambda: len(harness.engine.submitted) == 2)
        await harness.answer(PROMPT, 2)
    assert spans.names == [*LIFE[:5], "displaced", "decode", *LIFE[5:]]
    first, second = (span for span in spans.all if span.name == "decode")
    assert (first.attributes["aril.tokens"], second.attributes["aril.tokens"]) == (1, 1)
    assert second.attributes["aril.resumed_tokens"] == 1
    assert spans.one("displaced").start_time == first.end_time


async def test_a_job_whose_append_failed_is_one_trace(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins again below the same root, and is linked to nobody: it was ours before."""
    monkeypatch.setattr("aril.worker.effects.RETRY_SECONDS", 0.0)
    async with spans.harness() as harness:
        harness.put(record(job()))
        await harness.settle()
        harness.writer.failures.append(AppendError("RequestTimedOutError", hopeless=False))
        await harness.answer(PROMPT, 1, finish=False)
        await harness.until(lambda: len(harness.engine.submitted) == 2)
        await harness.answer(PROMPT, 1, 2)
    assert spans.names.count("process jobs") == 1
    assert spans.names.count("prefill") == 2
    assert spans.root.attributes["aril.attempt"] == 2
    assert not spans.root.links


async def test_what_is_dropped_before_its_turn_leaves_no_span(spans: Spans) -> None:
    """A partition with a long backlog may move at any time; its next owner tells of the waits."""
    async with spans.harness(max_rows=1) as harness:
        for name in ("a", "b", "c", "d", "e"):
            harness.put(record(job(name, prompt=name)))
        await harness.settle()
        harness.lifecycle.release_all()
        await harness.settle()
        begun = {span.attributes["aril.job"] for span in spans.all if span.parent is None}
        assert "a" in begun
        assert "e" not in begun
        assert not spans.tracing._traces
        assert not spans.tracing._open


async def test_a_client_that_does_not_sample_leaves_no_span(spans: Spans) -> None:
    """The sampler goes by the flag of the parent, as OpenTelemetry's default one does."""
    async with spans.harness() as harness:
        harness.put(record(job(), [("traceparent", TRACEPARENT[:-1] + b"0")]))
        await harness.settle()
        await harness.answer(PROMPT, 1)
        assert harness.visible("acme", "j1").terminal is not None
    assert not spans.all
    assert not spans.tracing._traces


@pytest.mark.parametrize(
    "headers",
    [
        [("traceparent", b"00-1")],
        [("traceparent", b"\xff\xfe")],
        [("traceparent", None)],
        [("traceparent", b"00-" + b"0" * 32 + b"-" + PARENT.encode() + b"-01")],
        [("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)],
        [("tracestate", b"a=1")],
    ],
)
async def test_a_malformed_parent_is_none(
    spans: Spans, headers: list[tuple[str, bytes | None]]
) -> None:
    """The job is answered in a trace of its own, and its record keeps the header."""
    bad = encode_request(job()).replace(b"prompt", b"promqt", 1)
    async with spans.harness() as harness:
        harness.put(record(bad, headers))
        await harness.settle()
        ((_, _, kept),) = harness.dead_letters
    assert spans.root.parent is None
    assert {name: value for name, value in headers if name in kept}.items() <= kept.items()


async def test_a_tracestate_that_is_none_is_left_out_quietly(
    spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    """The parent still holds; a log must not have what a tenant wrote."""
    headers = [("traceparent", TRACEPARENT), ("tracestate", b"SECRET TEXT,x=\x01SECRET")]
    async with spans.harness() as harness:
        harness.put(record(job(), headers))
        await harness.settle()
        await harness.answer(PROMPT, 1)
    assert f"{spans.root.context.trace_id:032x}" == TRACE
    assert "SECRET" not in caplog.text


@given(st.text(min_size=4), st.sampled_from(["stop", "error", "cancel"]))
@examples(max_examples=20)
def test_no_span_has_a_word_of_the_prompt(text: str, end: str) -> None:
    """Nor of the answer, of the metadata, or of what an error says."""
    secret = f"⟪{text}⟫"
    spans = Spans()

    async def live() -> None:
        async with spans.harness() as harness:
            asked = job(
                prompt=secret,
                metadata={"note": secret[:500]},
                sampling=Sampling(stop=(secret[:200],)),
            )
            harness.put(record(asked))
            await harness.settle(5)
            key = harness.key_of(secret)
            harness.step(Output(key, (1,), secret))
            if end == "stop":
                harness.step(Output(key, (2,), secret, finish="stop"))
            elif end == "error":
                harness.step(Output(key, error=JobError(ErrorCode.INTERNAL, secret)))
            else:
                harness.put(record(encode_request(Cancel(id="j1", tenant="acme"))))
            await harness.settle(5)

    asyncio.run(live())
    assert spans.root
    for span in spans.all:
        assert "⟪" not in span.to_json(indent=None).encode().decode("unicode_escape")
        assert "⟪" not in f"{span.name}{dict(span.attributes)}{span.status.description}"


async def test_spans_of_a_job_are_bounded(spans: Spans, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that gives way again and again has so many, and its root says how many it has not."""
    async with spans.harness(max_rows=1) as harness:
        harness.put(record(job("a")))
        await harness.settle()
        (entry,) = harness.state.entries
        monkeypatch.setattr(harness.dispatcher, "tick", lambda: None)
        for times in range(2, MOST_SPANS):
            harness.dispatcher._feed._displaced(entry, True)  # noqa: FBT003 - it had a row
            await harness.until(lambda times=times: len(harness.engine.submitted) == times)  # type: ignore[misc] # bound at once
        await harness.answer(PROMPT, 1)
    assert len(spans.all) == MOST_SPANS + 1
    assert spans.root.attributes["aril.spans_left_out"] > 0


async def test_a_step_is_linked_to_its_jobs_and_they_to_it(spans: Spans) -> None:
    """Both ways, so that either is found from the other; unknown keys are somebody else's."""
    async with spans.harness() as harness:
        harness.put(record(job()))
        await harness.settle()
        key = harness.key_of(PROMPT)
        spans.tracing.stepped(Step(1_000, 2_000, {key: 1, key + 1: 1}))
        spans.tracing.stepped(Step(1_000, 2_000, {key + 1: 1}))  # of no job that is traced
        await harness.answer(PROMPT, 1, 2)
    step = spans.one("step")
    assert (step.start_time, step.end_time) == (1_000, 2_000)
    assert step.parent is None
    assert dict(step.attributes) == {"aril.step.jobs": 2, "aril.step.tokens": 2}
    assert [link.context.span_id for link in step.links] == [spans.root.context.span_id]
    for name in ("prefill", "decode"):
        (link,) = spans.one(name).links
        assert link.context.span_id == step.context.span_id


async def test_what_goes_wrong_in_traces_is_no_matter_of_the_jobs() -> None:
    """A recorder that raises costs a trace; the job is answered."""

    class Broken:
        def open(self, _: Any) -> Any:
            raise RuntimeError("no")

    tracing = JobTracing(Broken(), worker="w1", base="tiny", group="aril", dlq_topic="jobs.dlq")  # type: ignore[arg-type] # it has no more
    async with Harness(tracing=tracing) as harness:
        harness.put(record(job()))
        await harness.settle()
        await harness.answer(PROMPT, 1)
        assert harness.visible("acme", "j1").terminal is not None
    assert not tracing._traces

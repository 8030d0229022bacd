"""Each fact of a job is counted once, however often it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.schemas import (
    Cancel,
    ClaimRecord,
    Epoch,
    Job,
    Sampling,
    TokensRecord,
    encode_reply,
    encode_request,
    reply_partition,
)
from aril.worker.accounting import PLACES
from aril.worker.replies.producer import AppendError
from aril.worker.stages import Stage
from tests.support.harness import REPLY_PARTITIONS, Harness

if TYPE_CHECKING:
    import pytest

    from aril.schemas import ReplyRecord

PROMPT = "prompt"


def value(harness: Harness, name: str, **labels: str) -> float:
    """Return one sample, 0 where there is none."""
    return harness.metrics.registry.get_sample_value(name, labels) or 0.0


def job(name: str = "j1", tokens: int = 50) -> Job:
    """Return a job whose answer may have so many tokens."""
    return Job(id=name, tenant="acme", prompt=PROMPT, sampling=Sampling(max_tokens=tokens))


async def test_a_job_whose_append_failed_is_counted_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes through the engine twice: one wait, one first token, one end; its prompt twice."""
    monkeypatch.setattr("aril.worker.effects.RETRY_SECONDS", 0.0)
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.writer.failures.append(AppendError("RequestTimedOutError", hopeless=False))
        await harness.answer(PROMPT, 1, finish=False)
        await harness.until(lambda: len(harness.engine.submitted) == 2)
        await harness.answer(PROMPT, 1, 2, 3)
        assert harness.visible("acme", "j1").token_ids == [1, 2, 3]
        assert value(harness, "aril_jobs_interrupted_total") == 1
        for name in ("queue", "ttft", "job"):
            assert value(harness, f"aril_{name}_seconds_count") == 1
        assert value(harness, "aril_jobs_total", end="stop") == 1
        assert value(harness, "aril_prompt_tokens_total") == 2 * len(PROMPT)
        assert value(harness, "aril_tokens_total") == 4
        assert value(harness, "aril_tenant_tokens_total", tenant="acme") == 3
        assert value(harness, "aril_tenant_prompt_tokens_total", tenant="acme") == len(PROMPT)
        assert value(harness, "aril_tenant_jobs_total", tenant="acme", end="stop") == 1


async def test_who_takes_a_job_over_counts_its_end_and_not_its_beginning(harness: Harness) -> None:
    """Its wait and its first token were another worker's; its tokens are told whole, once."""
    theirs: list[ReplyRecord] = [
        ClaimRecord(job="j1", epoch=Epoch(2, 1), worker="w0"),
        TokensRecord(job="j1", epoch=Epoch(2, 1), worker="w0", index=0, ids=(1, 2), text="xx"),
    ]
    log = harness.writer.logs["replies.acme", reply_partition("j1", REPLY_PARTITIONS)]
    log += [(b"j1", encode_reply(record), {}) for record in theirs]
    harness.send(job())
    await harness.until(lambda: bool(harness.engine.requests))
    await harness.answer(PROMPT, 3, 4)
    assert harness.visible("acme", "j1").token_ids == [1, 2, 3, 4]
    assert value(harness, "aril_queue_seconds_count") == 0
    assert value(harness, "aril_ttft_seconds_count") == 0
    assert value(harness, "aril_tenant_ttft_seconds_count", tenant="acme") == 0
    assert value(harness, "aril_job_seconds_count") == 1
    assert value(harness, "aril_tokens_total") == 2
    assert value(harness, "aril_tenant_tokens_total", tenant="acme") == 4
    pace = "gen_ai_server_time_per_output_token_seconds_count"
    labels = {
        "gen_ai_operation_name": "text_completion",
        "gen_ai_provider_name": "aril",
        "gen_ai_request_model": "",
        "gen_ai_response_model": "",
    }
    assert value(harness, pace, **labels) == 1


async def test_a_terminal_that_stands_already_was_counted_by_who_wrote_it(
    harness: Harness,
) -> None:
    """Its offset was not committed, and others may have had it since; the job is no new one."""
    harness.send(job("first"))
    await harness.until(lambda: bool(harness.engine.requests))
    await harness.answer(PROMPT, 1, 2)
    harness.revoke(harness.state)
    harness.assign(generation=5, end_offset=10)
    harness.deliver(harness.state, 0, job("first"))
    await harness.settle()
    assert value(harness, "aril_jobs_total", end="stop") == 1
    assert value(harness, "aril_jobs_total", end="answered_before") == 1
    assert value(harness, "aril_job_seconds_count") == 1
    assert value(harness, "aril_tenant_jobs_total", tenant="acme", end="stop") == 1


async def test_what_waits_is_known_in_tokens_and_by_tenant() -> None:
    """It rises with what is read, falls with what begins, and is nothing in the end."""
    async with Harness(max_rows=1) as harness:
        for name in ("j1", "j2", "j3"):
            harness.send(job(name, tokens=40))
        await harness.settle()
        running = harness.running
        waiting = 3 - len(running)
        cost = len(encode_request(job(tokens=40))) // 4 + 40
        assert running
        assert value(harness, "aril_waiting_tokens") == waiting * cost
        assert harness.metrics.tenants._at["running"]["acme"] == len(running)
        assert harness.metrics.tenants._at["waiting"]["acme"] == waiting
        harness.lifecycle.release_all()
        await harness.settle()
        assert value(harness, "aril_waiting_tokens") == 0
        assert not harness.metrics.tenants._at["running"]
        assert not harness.metrics.tenants._at["waiting"]


def test_every_stage_before_the_engine_is_waiting() -> None:
    """A new stage has to be put somewhere."""
    elsewhere = {
        *(Stage.ARRIVED, Stage.DOOMED, Stage.CONDEMNED, Stage.FAILING, Stage.FINISHING),
        *(Stage.UNTOLD, Stage.SETTLING, Stage.SETTLED, Stage.DROPPED),
    }
    assert set(Stage) - elsewhere == set(PLACES)
    assert [stage for stage in Stage if PLACES.get(stage) == "running"] == [Stage.RUNNING]


async def test_a_cancelled_job_waits_no_longer() -> None:
    """It ends in an error of its own, with what it has."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        await harness.answer(PROMPT, 1, finish=False)
        harness.send(encode_request(Cancel(id="j1", tenant="acme")))
        await harness.settle()
        assert value(harness, "aril_jobs_total", end="cancelled") == 1
        assert value(harness, "aril_tenant_tokens_total", tenant="acme") == 1
        assert value(harness, "aril_tenant_running_jobs", tenant="acme") == 0


async def test_a_rebalance_is_timed_and_counted(harness: Harness) -> None:
    """From the revocation to the next assignment."""
    before = value(harness, "aril_rebalances_total")
    harness.revoke(harness.state)
    harness.assign(generation=4)
    assert value(harness, "aril_rebalances_total") == before + 1
    assert value(harness, "aril_rebalance_seconds_count") == 1

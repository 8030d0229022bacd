"""Taking jobs over, on logs that are lists: what is claimed, read back, and gone on with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from schemas import (
    Cancel,
    ClaimRecord,
    DoneEvent,
    Epoch,
    ErrorCode,
    ErrorEvent,
    Job,
    ReleaseRecord,
    ReplyRecord,
    Sampling,
    TokensRecord,
    encode_reply,
    encode_request,
    reply_partition,
)
from tests.support.harness import REPLY_PARTITIONS, Harness
from worker.engine.request import Output
from worker.jobs import Partition
from worker.writer import AppendError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

OLD = 5  # the offset below which jobs are not fresh


@pytest.fixture
async def harness(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Harness]:
    """Run a worker that has won a partition whose first jobs are not fresh."""
    monkeypatch.setattr("worker.service.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("worker.claims.FIRST_DELAY_SECONDS", 0.0)
    async with Harness() as made:
        made.assign(generation=3, end_offset=OLD)
        yield made


def job(name: str = "j1", **fields: Any) -> Job:
    """Return a job that anybody would accept."""
    fields.setdefault("prompt", f"prompt of {name}")
    return Job(id=name, tenant="acme", **fields)


def before(harness: Harness, *records: ReplyRecord) -> None:
    """Let earlier owners have written."""
    for record in records:
        where = reply_partition(record.job, REPLY_PARTITIONS)
        log = harness.writer.logs["replies.acme", where]
        log.append((record.job.encode(), encode_reply(record), {}))


def tokens(index: int, *ids: int, epoch: tuple[int, int] = (2, 1), worker: str = "w0") -> Any:
    """Return a record of an earlier owner."""
    text = "".join(chr(96 + each) for each in ids)
    return TokensRecord(
        job="j1", epoch=Epoch(*epoch), worker=worker, index=index, ids=ids, text=text
    )


def claim(epoch: tuple[int, int], worker: str, *, alone: bool = False) -> ClaimRecord:
    """Return the claim of an earlier owner."""
    return ClaimRecord(job="j1", epoch=Epoch(*epoch), worker=worker, alone=alone)


def kinds(harness: Harness, name: str = "j1") -> list[str]:
    """Return the kinds of a job's records, in log order."""
    return [
        type(each).__name__.removesuffix("Record").lower() for each in harness.replies("acme", name)
    ]


async def test_an_older_job_goes_on_in_mid_sentence(harness: Harness) -> None:
    """The visible tokens are forced on the engine; the next one follows them, without a reset."""
    before(harness, tokens(0, 1, 2))
    harness.send(job())
    await harness.settle()
    key = harness.key_of("prompt of j1")
    assert harness.engine.requests[key].resume_ids == (1, 2)
    harness.step(Output(key, (3,), "c", finish="stop"))
    await harness.settle()
    stream = harness.visible("acme", "j1")
    assert (stream.token_ids, stream.text, stream.resets) == ([1, 2, 3], "abc", 0)
    assert (stream.epoch, stream.writer) == ((3, 1), "w1")
    assert kinds(harness) == ["tokens", "claim", "tokens", "done"]
    assert harness.committable == 1


async def test_an_answered_job_is_only_marked(harness: Harness) -> None:
    """The worker died between the terminal and the commit: nothing is computed again."""
    before(harness, tokens(0, 1))
    harness.send(job())
    await harness.settle()
    harness.step(Output(harness.key_of("prompt of j1"), (2,), "b", finish="stop"))
    await harness.settle()
    written = kinds(harness)
    harness.service.on_revoked([harness.state])
    state = harness.assign(generation=4, end_offset=OLD)
    harness.deliver(state, 0, job())
    await harness.settle()
    assert kinds(harness) == [*written, "claim"]
    assert len(harness.engine.requests) == 1  # the first one's; nothing was asked again
    assert harness.committable == 1


async def test_a_fresh_job_pays_nothing(harness: Harness) -> None:
    """No claim, no look at the log."""
    for number in range(OLD):
        harness.send(job(f"old-{number}"))
    await harness.settle()
    reads = len(harness.reader.reads)
    harness.send(job("fresh"))
    await harness.settle()
    harness.step(Output(harness.key_of("prompt of fresh"), (1,), "a", finish="stop"))
    await harness.settle()
    assert kinds(harness, "fresh") == ["tokens", "done"]
    assert len(harness.reader.reads) == reads


async def test_jobs_of_one_reply_partition_share_a_pass(harness: Harness) -> None:
    """Claims go out together and are read back once."""
    for number in range(4):
        harness.send(job(f"j{number}", reply_partition=2))
    await harness.settle()
    assert len(harness.engine.requests) == 4
    assert harness.reader.reads == [Partition("replies.acme", 2)]


async def test_an_epoch_above_ours_is_answered_by_a_proof(harness: Harness) -> None:
    """The group was deleted and counts anew: we claim above what is in the log, and go on."""
    before(harness, claim((9, 1), "w0"), tokens(0, 1, epoch=(9, 1)))
    harness.send(job())
    await harness.settle()
    harness.step(Output(harness.key_of("prompt of j1"), (2,), "b", finish="stop"))
    await harness.settle()
    stream = harness.visible("acme", "j1")
    assert (stream.token_ids, stream.resets, stream.epoch) == ([1, 2], 0, (13, 1))
    harness.send(job("next"))
    await harness.settle()
    assert {each.epoch for each in harness.replies("acme", "next")} == {(13, 1)}


async def test_without_a_proof_nothing_is_written(harness: Harness) -> None:
    """A zombie claims in vain: its partition is somebody else's, and it says only goodbye."""
    before(harness, claim((9, 1), "w0"), tokens(0, 1, epoch=(9, 1)))
    harness.owned = False
    harness.send(job())
    await harness.settle()
    assert harness.engine.requests == {}
    harness.service.on_revoked([harness.state])
    await harness.settle()
    assert kinds(harness)[:2] == ["claim", "tokens"]
    assert set(kinds(harness)[2:]) == {"claim", "release"}
    stream = harness.visible("acme", "j1")
    assert (stream.token_ids, stream.writer) == ([1], "w0")


async def test_a_prefix_that_retention_deleted_is_withdrawn(harness: Harness) -> None:
    """Where the answer may have begun is gone: it starts again, and readers are told."""
    before(harness, tokens(0, 1, 2))
    where = Partition("replies.acme", reply_partition("j1", REPLY_PARTITIONS))
    harness.reader.starts[where] = 1
    harness.send(job(reply_from=0))
    await harness.settle()
    key = harness.key_of("prompt of j1")
    assert harness.engine.requests[key].resume_ids == ()
    harness.step(Output(key, (1,), "a", finish="stop"))
    await harness.settle()
    stream = harness.visible("acme", "j1")
    assert (stream.token_ids, stream.resets) == ([1], 1)
    assert stream.finished


async def test_without_a_prefix_an_epoch_above_ours_still_counts(harness: Harness) -> None:
    """Live readers know it though the log's beginning is gone: we prove, and begin above it."""
    before(harness, tokens(0, 1, epoch=(9, 1)), tokens(1, 2, epoch=(9, 1)))
    where = Partition("replies.acme", reply_partition("j1", REPLY_PARTITIONS))
    harness.reader.starts[where] = 1
    harness.send(job(reply_from=0))
    await harness.settle()
    harness.step(Output(harness.key_of("prompt of j1"), (5,), "e", finish="stop"))
    await harness.settle()
    stream = harness.visible("acme", "j1")
    assert (stream.token_ids, stream.resets, stream.finished) == ([5], 1, True)
    assert stream.epoch == (13, 2)


@pytest.mark.parametrize("by", ["cancel", "deadline", "refusal"])
async def test_an_error_stands_behind_what_is_visible(harness: Harness, by: str) -> None:
    """An error for a job that was begun before withdraws nothing."""
    before(harness, tokens(0, 1, 2))
    asked = job(adapter="nobody") if by == "refusal" else job(deadline_ms=1_000)
    harness.send(asked, age_ms=2_000 if by == "deadline" else 0)
    if by == "cancel":
        harness.send(encode_request(Cancel(id="j1", tenant="acme")))
    await harness.settle()
    stream = harness.visible("acme", "j1")
    assert isinstance(stream.terminal, ErrorEvent)
    assert (stream.token_ids, stream.terminal.index, stream.resets) == ([1, 2], 2, 0)
    assert harness.committable == (2 if by == "cancel" else 1)


async def test_a_failed_append_is_read_back_and_gone_on_with(harness: Harness) -> None:
    """Whether the append landed is learned from the log; the next attempt goes on behind it."""
    for landed in (False, True):
        name = f"fresh-{landed}"
        while next(harness.offsets) < OLD:
            pass
        harness.send(job(name))
        await harness.settle()
        first = harness.key_of(f"prompt of {name}")
        harness.step(Output(first, (1,), "a"))
        await harness.settle()
        harness.writer.failures = [AppendError("KafkaTimeoutError", hopeless=False)]
        if landed:
            second = TokensRecord(
                job=name, epoch=Epoch(3, 1), worker="w1", index=1, ids=(2,), text="b"
            )
            before(harness, second)
        harness.step(Output(first, (2,), "b"))
        await harness.settle()
        key = harness.key_of(f"prompt of {name}")
        assert harness.engine.requests[key].resume_ids == ((1, 2) if landed else (1,))
        harness.step(Output(first, (9,), "late"), Output(key, (3,), "c", finish="stop"))
        await harness.settle()
        stream = harness.visible("acme", name)
        assert stream.token_ids == ([1, 2, 3] if landed else [1, 3])
        assert (stream.resets, stream.epoch) == (0, (3, 2))


async def test_a_claim_that_failed_is_repeated_above_itself(harness: Harness) -> None:
    """It may still land: the next one has a higher attempt."""
    harness.writer.failures = [AppendError("KafkaTimeoutError", hopeless=False)]
    harness.send(job())
    await harness.settle()
    assert [each.epoch for each in harness.replies("acme", "j1")] == [(3, 2)]
    assert len(harness.engine.requests) == 1


async def test_a_claim_that_can_never_be_written_puts_the_job_aside(harness: Harness) -> None:
    """No right to write, or no topic any more: a dead letter, and the offset is done."""
    harness.writer.failures = [AppendError("TopicAuthorizationFailedError", hopeless=True)]
    harness.send(job())
    await harness.settle()
    assert harness.dead_letters[0][2]["aril-reason"] == b"reply_unwritable"
    assert harness.engine.requests == {}
    assert harness.committable == 1


async def test_two_crashes_without_a_token_and_a_job_runs_alone(harness: Harness) -> None:
    """It is put back with a release until the engine is empty, then it has it to itself."""
    harness.send(job("other"))
    await harness.settle()
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"))
    harness.send(job())
    await harness.settle()
    assert kinds(harness) == ["claim", "claim", "claim", "release"]
    harness.send(job("third"))
    await harness.settle()
    assert {each.prompt_ids for each in harness.engine.requests.values()} == {
        tuple(b"prompt of other")
    }
    harness.step(Output(harness.key_of("prompt of other"), (1,), "a", finish="stop"))
    await harness.settle()
    last = harness.replies("acme", "j1")[-1]
    assert isinstance(last, ClaimRecord)
    assert (last.alone, last.epoch) == (True, (3, 2))
    assert harness.running == ["prompt of j1"]
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a", finish="stop"))
    await harness.settle()
    assert harness.running == ["prompt of third"]
    assert harness.visible("acme", "j1").finished


async def test_a_job_that_kills_alone_is_convicted_behind_its_tokens(harness: Harness) -> None:
    """Three workers ended while they ran nothing else: the job ends in crash_loop."""
    before(
        harness,
        tokens(0, 1),
        *(claim((2, n), f"w-{n}", alone=True) for n in range(2, 6)),
    )
    harness.send(job())
    await harness.settle()
    terminal = harness.visible("acme", "j1").terminal
    assert isinstance(terminal, ErrorEvent)
    assert (terminal.code, terminal.index) == (ErrorCode.CRASH_LOOP, 1)
    assert harness.engine.requests == {}
    assert harness.committable == 1


async def test_a_token_clears_a_suspect(harness: Harness) -> None:
    """Two deaths, then a writer that got further: the job is served beside others again."""
    before(harness, claim((1, 1), "w-a"), claim((2, 1), "w-b"), claim((2, 2), "w-c"))
    before(harness, tokens(0, 1, epoch=(2, 2), worker="w-c"))
    harness.send(job("other"))
    harness.send(job())
    await harness.settle()
    assert sorted(harness.running) == ["prompt of j1", "prompt of other"]


async def test_ten_rolling_restarts_convict_nobody(harness: Harness) -> None:
    """Writers that said farewell, or brought a token, are no strikes."""
    for n in range(1, 11):
        epoch = (1, n)
        before(
            harness,
            claim(epoch, f"w-{n}"),
            ReleaseRecord(job="j1", epoch=Epoch(*epoch), worker=f"w-{n}"),
        )
    before(harness, claim((2, 1), "x"), tokens(0, 1, epoch=(2, 1), worker="x"))
    harness.send(job())
    await harness.settle()
    assert harness.running == ["prompt of j1"]


async def test_a_running_job_goes_on_across_a_rebalance(harness: Harness) -> None:
    """The partition came back to the same member in the next generation: no claim, no pause."""
    while next(harness.offsets) < OLD:
        pass
    offset = harness.send(job())
    await harness.settle()
    key = harness.key_of("prompt of j1")
    harness.step(Output(key, (1,), "a"))
    await harness.settle()
    harness.service.on_revoked([harness.state])
    harness.step(Output(key, (2,), "b"))
    await harness.settle()
    state = harness.assign(generation=4, end_offset=offset + 1)
    harness.step(Output(key, (3,), "c"))
    harness.deliver(state, offset, job())
    await harness.settle()
    harness.step(Output(key, (4,), "d", finish="stop"))
    await harness.settle()
    stream = harness.visible("acme", "j1")
    assert (stream.token_ids, stream.epoch, stream.resets) == ([1, 2, 3, 4], (3, 1), 0)
    assert "claim" not in kinds(harness)
    assert harness.committable == offset + 1


async def test_a_job_that_ended_during_a_rebalance_is_done_when_it_comes_again(
    harness: Harness,
) -> None:
    """Its terminal was acknowledged between two assignments: the redelivery finds it finished."""
    while next(harness.offsets) < OLD:
        pass
    offset = harness.send(job())
    await harness.settle()
    harness.service.on_revoked([harness.state])
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a", finish="stop"))
    await harness.settle()
    state = harness.assign(generation=4, end_offset=offset + 1)
    assert harness.committable is None
    harness.deliver(state, offset, job())
    await harness.settle()
    assert harness.committable == offset + 1
    assert kinds(harness) == ["tokens", "done"]


@pytest.mark.parametrize("change", ["generation", "member", "partition"])
async def test_a_missed_generation_makes_it_a_take_over(harness: Harness, change: str) -> None:
    """Somebody may have owned it meanwhile: it stops, is released, and claimed if it returns."""
    while next(harness.offsets) < OLD:
        pass
    offset = harness.send(job())
    await harness.settle()
    key = harness.key_of("prompt of j1")
    harness.step(Output(key, (1,), "a"))
    await harness.settle()
    harness.service.on_revoked([harness.state])
    state = harness.assign(
        generation=5 if change == "generation" else 4,
        member="another" if change == "member" else "member",
        end_offset=offset + 1,
        source=Partition("jobs", 1) if change == "partition" else Partition("jobs", 0),
    )
    await harness.settle()
    assert key in harness.engine.cancelled
    assert kinds(harness) == ["tokens", "release"]
    if change == "partition":
        return
    harness.deliver(state, offset, job())
    await harness.settle()
    assert kinds(harness) == ["tokens", "release", "claim"]
    assert harness.engine.requests[harness.key_of("prompt of j1")].resume_ids == (1,)


async def test_every_owner_draws_the_same_seed(harness: Harness) -> None:
    """A job without a seed gets one from its record, so a sampled answer goes on as it began."""
    offset = harness.send(job())
    await harness.settle()
    first = harness.engine.requests[harness.key_of("prompt of j1")].seed
    harness.service.on_revoked([harness.state])
    state = harness.assign(generation=9, end_offset=OLD)
    harness.engine.requests.clear()
    harness.deliver(state, offset, job())
    await harness.settle()
    assert harness.engine.requests[harness.key_of("prompt of j1")].seed == first
    harness.send(job("j2"))
    harness.send(job("j3", sampling=Sampling(seed=7)))
    await harness.settle()
    seeds = {each.prompt_ids: each.seed for each in harness.engine.requests.values()}
    assert seeds[tuple(b"prompt of j2")] != first
    assert seeds[tuple(b"prompt of j3")] == 7


async def test_leaving_releases_what_runs(harness: Harness) -> None:
    """The next owner is told that nobody crashed."""
    while next(harness.offsets) < OLD:
        pass
    harness.send(job())
    harness.send(job("untouched"))
    await harness.settle()
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a"))
    await harness.settle()
    harness.service.release_all()
    await harness.answers.farewell(1.0)
    assert kinds(harness) == ["tokens", "release"]
    assert kinds(harness, "untouched") == []
    assert harness.running == []


async def test_leaving_releases_what_was_only_claimed(harness: Harness) -> None:
    """A worker that leaves between its claim and its first token is no strike."""
    harness.owned = False  # so that the take-over goes on for ever
    before(harness, claim((9, 1), "w0"))
    harness.send(job())
    await harness.settle()
    harness.service.release_all()
    await harness.answers.farewell(1.0)
    last = harness.replies("acme", "j1")[-1]
    assert isinstance(last, ReleaseRecord)
    assert last.epoch == harness.replies("acme", "j1")[-2].epoch


async def test_a_cancel_during_a_take_over_is_told_once(harness: Harness) -> None:
    """The claim is under way when the cancel comes: one claim, one terminal, behind the prefix."""
    before(harness, tokens(0, 1))
    harness.writer.held = asyncio.Event()
    harness.send(job())
    await harness.settle()
    harness.send(encode_request(Cancel(id="j1", tenant="acme")))
    await harness.settle()
    harness.writer.held.set()
    await harness.settle()
    assert kinds(harness) == ["tokens", "claim", "error"]
    assert harness.engine.requests == {}
    assert harness.committable == 2
    assert not isinstance(harness.visible("acme", "j1").terminal, DoneEvent)

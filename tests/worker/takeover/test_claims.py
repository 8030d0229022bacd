"""Taking jobs over, on logs that are lists: what is claimed, read back, and gone on with."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from aril.schemas import (
    Cancel,
    DoneEvent,
    Epoch,
    ErrorEvent,
    TokensRecord,
    encode_reply,
    encode_request,
    reply_partition,
)
from aril.worker.engine.request import Output
from aril.worker.job import Partition
from aril.worker.replies.producer import AppendError
from aril.worker.takeover.readback import ReadError
from tests.support.harness import REPLY_PARTITIONS, Harness
from tests.support.older_jobs import OLD, before, claim, job, kinds, tokens


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
    harness.revoke(harness.state)
    state = harness.assign(generation=5, end_offset=OLD)
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


async def test_a_long_backlog_is_not_read_back_once_a_batch() -> None:
    """Two hundred inherited jobs, four rows: the log is read once, and then as far as it grew."""
    async with Harness(max_rows=4) as harness:
        harness.assign(generation=3, end_offset=200)
        names = [f"j{number}" for number in range(200)]
        for name in names:
            record = TokensRecord(
                job=name, epoch=Epoch(2, 1), worker="w0", index=0, ids=(1,), text="a"
            )
            log = harness.writer.logs["replies.acme", 2]
            log.append((name.encode(), encode_reply(record), {}))
            harness.send(job(name, reply_partition=2))
        for _ in range(200):
            await harness.settle(rounds=10)
            for key, request in [*harness.engine.requests.items()]:
                assert request.resume_ids == (1,)
                harness.step(Output(key, (2,), "b", finish="stop"))
                del harness.engine.requests[key]
            if harness.committable == 200:
                break
        assert harness.committable == 200
        log = harness.writer.logs["replies.acme", 2]
        assert len(log) == 200 * 4  # what there was, claim, tokens, done
        assert harness.reader.handed_out <= len(log) + 200
        assert len(harness.reader.reads) > 5


async def test_a_read_that_breaks_is_begun_anew(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read in part is not relied on, neither by the batch nor by those that wait."""
    before(harness, tokens(0, 1), tokens(1, 2))
    whole = harness.reader.read
    broken: list[int] = []

    async def read(source: Partition, start: int, last: int, take: Any) -> None:
        if not broken:
            broken.append(start)
            await whole(source, start, start, take)
            raise ReadError("gone")
        await whole(source, start, last, take)

    monkeypatch.setattr(harness.reader, "read", read)
    harness.send(job())
    await harness.settle()
    assert broken == [0]
    assert harness.engine.requests[harness.key_of("prompt of j1")].resume_ids == (1, 2)
    assert [each.epoch for each in harness.replies("acme", "j1")[2:]] == [(3, 1), (3, 2)]


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
    harness.revoke(harness.state)
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
        await harness.settle()  # its reply log is tried again
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


async def test_what_comes_again_is_above_every_claim_that_may_have_landed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some records of a batch land though others never can: below these nothing counts."""
    before(harness, claim((9, 1), "w0"), tokens(0, 1, epoch=(9, 1)))
    append_all = harness.writer.append_all
    appends = itertools.count(1)

    async def land_and_fail(*args: Any, **kwargs: Any) -> list[int]:
        offsets = await append_all(*args, **kwargs)
        if next(appends) == 2:  # the claim above what is in the log
            raise AppendError("TopicAuthorizationFailedError", hopeless=True)
        return offsets

    monkeypatch.setattr(harness.writer, "append_all", land_and_fail)
    harness.send(job())
    await harness.until(lambda: bool(harness.dead_letters))
    await harness.settle()
    assert harness.visible("acme", "j1").epoch == (13, 1)
    harness.offsets = itertools.count(harness.state.fresh_from)
    harness.send(job())
    await harness.settle()
    harness.step(Output(harness.key_of("prompt of j1"), (7,), "b", finish="stop"))
    await harness.settle()
    stream = harness.visible("acme", "j1")
    assert (stream.token_ids, stream.finished) == ([7], True)


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

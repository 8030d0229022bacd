"""A job that is sent again is the first one: its identity is what it asks, not where it is read."""

from __future__ import annotations

import asyncio
from typing import Any

import msgpack
import pytest

from aril.schemas import (
    Conflict,
    Job,
    Message,
    Sampling,
    decode_conflict,
    decode_redirect,
    decode_request,
    encode_request,
    hash_of_record,
    question_of,
    reply_partition,
)
from aril.worker.engine.request import Output
from aril.worker.job import Record, digest_of, seed_of
from aril.worker.replies.producer import AppendError
from tests.support.entries import entry_of
from tests.support.harness import REPLY_PARTITIONS, Harness


def job(reply_from: int | None = 7, **fields: Any) -> Job:
    """Return the job, as a client sends it that reads from there."""
    return Job(**{"id": "j1", "tenant": "acme", "prompt": "hi", "reply_from": reply_from} | fields)


HI = (Message(role="user", content="hi"),)


def redirects(harness: Harness) -> list[int]:
    """Return where clients of the job were told to read from."""
    log = harness.writer.logs["replies.acme", reply_partition("j1", REPLY_PARTITIONS)]
    found = (decode_redirect(value, "j1") for _, value, _ in log)
    return [start for start in found if start is not None]


def conflicts(harness: Harness, partition: int | None = None) -> list[Conflict]:
    """Return what senders of other jobs under the id were told, on their partition."""
    hashed = reply_partition("j1", REPLY_PARTITIONS)
    log = harness.writer.logs["replies.acme", hashed if partition is None else partition]
    found = (decode_conflict(value, "j1") for _, value, _ in log)
    return [conflict for conflict in found if conflict is not None]


def test_the_same_question_is_the_same_however_it_is_written() -> None:
    """Order of fields, spelt-out defaults, unknown fields, where it is read: no matter."""
    told = msgpack.unpackb(encode_request(job(prompt=None, messages=HI)))
    other = dict(reversed(told.items())) | {"reply_from": 9, "priority": 0, "later": 1}
    for fields, order in ((told, 1), (other, -1)):
        for name in ("metadata", "chat_template_kwargs"):
            fields[name] = dict([("a", "1"), ("b", "2")][::order])
        fields["sampling"] = {"logit_bias": dict([("1", 1.0), ("2", 2.0)][::order])}
    first, again = (decode_request(msgpack.packb(each)) for each in (told, other))
    assert isinstance(first, Job)
    assert isinstance(again, Job)
    assert question_of(first) == question_of(again)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "ho"},
        {"tenant": "zeta"},
        {"adapter": "terse"},
        {"priority": 1},
        {"deadline_ms": 1},
        {"metadata": {"a": "1"}},
        {"sampling": Sampling(max_tokens=5)},
        {"sampling": Sampling(logit_bias={"1": 1.0})},
        {"prompt": None, "messages": HI, "chat_template_kwargs": {"a": 1}},
        {"prompt": None, "token_ids": (1,)},
    ],
)
def test_another_question_is_another(change: dict[str, Any]) -> None:
    """Whatever changes the answer, or what is told with it, makes another question of it."""
    assert question_of(job()) != question_of(job(**change))


def test_the_noise_of_an_answer_hangs_on_the_record() -> None:
    """Two owners of one record draw the same seed; another record draws another."""
    one, two = entry_of("j1", offset=3), entry_of("j1", offset=3)
    two.digest = digest_of(None, job())
    assert seed_of(one) == seed_of(two)
    two.record = Record(one.record.source, 3, 0, None, b"other", ())
    assert seed_of(one) != seed_of(two)


async def test_while_the_first_runs_its_reader_is_led_to_the_beginning() -> None:
    """The second asks for nothing new, and reads where the first one does; it runs once."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (1,), "a"))
        again = harness.send(job(reply_from=8))
        await harness.settle()
        assert len(harness.engine.submitted) == 1
        assert redirects(harness) == [7]
        assert harness.state.ledger is not None
        assert harness.state.ledger.is_done(again)
        harness.step(Output(harness.key_of("hi"), (2,), "b", finish="stop"))
        await harness.settle()
        assert harness.visible("acme", "j1").token_ids == [1, 2]
        assert harness.committable == 2
        assert harness.dead_letters == []


async def test_after_the_first_has_ended_too() -> None:
    """What is finished is remembered with where it begins."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (1,), "a", finish="stop"))
        await harness.settle()
        harness.send(job(reply_from=9))
        await harness.settle()
        assert redirects(harness) == [7]
        assert harness.committable == 2
        assert harness.visible("acme", "j1").finished


async def test_a_refused_job_is_refused_once() -> None:
    """Its error is the answer, and whoever sends it again is led there."""
    async with Harness() as harness:
        for start in (7, 8):
            harness.send(job(start, sampling=Sampling(max_tokens=100_000)))
            await harness.settle()
        assert redirects(harness) == [7]
        assert len(harness.replies("acme", "j1")) == 1
        assert harness.dead_letters == []


@pytest.mark.parametrize(("first", "again"), [(7, 7), (7, 6), (None, 7), (7, None)])
async def test_who_reads_the_answer_anyway_is_told_nothing(
    first: int | None, again: int | None
) -> None:
    """A producer's own retry says the same place; without a place there is nothing to tell."""
    async with Harness() as harness:
        harness.send(job(first))
        harness.send(job(again))
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (1,), "a", finish="stop"))
        await harness.settle()
        assert redirects(harness) == []
        assert harness.committable == 2


@pytest.mark.parametrize(
    ("change", "partition"),
    [({"prompt": "ho"}, reply_partition("j1", REPLY_PARTITIONS)), ({"reply_partition": 2}, 2)],
)
@pytest.mark.parametrize("ended", [False, True])
async def test_something_else_under_the_id_is_put_aside(
    change: dict[str, Any], partition: int, ended: bool
) -> None:
    """Its sender is told where it reads; the first one's answer goes on as it was."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        if ended:
            harness.step(Output(harness.key_of("hi"), (1,), "a", finish="stop"))
            await harness.settle()
        other = encode_request(job(reply_from=8, **change))
        offset = harness.send(other)
        await harness.settle()
        assert redirects(harness) == []
        assert conflicts(harness, partition) == [Conflict(hash_of_record(other), 8)]
        assert [each[2]["aril-reason"] for each in harness.dead_letters] == [b"duplicate_id"]
        assert harness.state.ledger is not None
        assert harness.state.ledger.is_done(offset)
        if not ended:
            harness.step(Output(harness.key_of("hi"), (1,), "a", finish="stop"))
            await harness.settle()
        assert harness.visible("acme", "j1").finished
        assert harness.committable == 2


@pytest.mark.parametrize("place", [7, None])
async def test_by_the_place_alone_only_who_has_it_alone_is_told(place: int | None) -> None:
    """Where both senders read from one place, what is there is the first one's answer."""
    async with Harness() as harness:
        harness.send(job(place))
        other = encode_request(job(place, prompt="ho"))
        harness.send(other)
        await harness.settle()
        assert conflicts(harness) == [Conflict(hash_of_record(other))]


async def test_a_bad_record_under_a_known_id_is_told_so_too() -> None:
    """Of whatever kind the second record is: its sender knows it by its bytes."""
    async with Harness() as harness:
        harness.send(job())
        bad = msgpack.packb({"v": 1, "kind": "job", "id": "j1", "tenant": "acme", "prompt": 5})
        harness.send(bad)
        await harness.settle()
        assert conflicts(harness) == [Conflict(hash_of_record(bad))]
        assert [each[2]["aril-reason"] for each in harness.dead_letters] == [b"duplicate_id"]
        assert harness.replies("acme", "j1") == []


async def test_a_conflict_that_nobody_can_be_told_of_is_put_aside() -> None:
    """Its offset does not wait for a topic that takes nothing."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.writer.failures.append(AppendError("no", hopeless=True))
        harness.send(job(8, prompt="ho"))
        await harness.settle()
        assert conflicts(harness) == []
        assert [each[2]["aril-reason"] for each in harness.dead_letters] == [b"duplicate_id"]


async def test_a_redirect_whose_append_fails_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record is finished when it stands, or is put aside where it never can."""
    monkeypatch.setattr("aril.worker.replies.notices.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.replies.reply_logs.FIRST_DELAY_SECONDS", 0.0)
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        for hopeless, put_aside in (False, 0), (True, 1):
            harness.writer.failures.append(AppendError("no", hopeless=hopeless))
            offset = harness.send(job(reply_from=8))
            await harness.settle()
            assert redirects(harness) == [7]
            assert len(harness.dead_letters) == put_aside
            assert harness.state.ledger is not None
            assert harness.state.ledger.is_done(offset)


async def test_a_log_that_does_not_answer_is_tried_by_one_redirect_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first finds that out; the others wait without an append, and none is lost."""
    monkeypatch.setattr("aril.worker.replies.notices.RETRY_SECONDS", 0.0)
    monkeypatch.setattr("aril.worker.replies.reply_logs.FIRST_DELAY_SECONDS", 0.0)
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.writer.down["replies.acme"] = gone = asyncio.Event()
        harness.send(job(reply_from=8))
        gone.set()
        for _ in range(5):
            await asyncio.sleep(0)
        harness.writer.down["replies.acme"] = gone = asyncio.Event()
        for start in range(9, 19):
            harness.send(job(reply_from=start))
        before = harness.writer.tried.count("replies.acme")
        for _ in range(10):
            await harness.settle()
        assert harness.writer.tried.count("replies.acme") == before + 1
        assert harness.lifecycle.parts.pending.bytes > 0
        gone.set()
        del harness.writer.down["replies.acme"]
        for _ in range(3):
            await harness.settle()
        assert redirects(harness) == [7] * 11
        assert harness.lifecycle.parts.pending.bytes == 0
        assert harness.lifecycle.parts.parking.logs_down == 0


async def test_redirects_that_wait_for_a_log_go_with_their_partition(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing of them is appended once the log is back, and nobody tries it for them."""
    monkeypatch.setattr("aril.worker.replies.notices.RETRY_SECONDS", 0.0)
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.writer.failures.append(AppendError("no", hopeless=False))
        for start in (8, 9):
            harness.send(job(reply_from=start))
        await harness.settle()
        harness.revoke(harness.state)
        await harness.settle()
        parts = harness.lifecycle.parts
        assert not parts.notices._waiting
        assert not parts.notices._turns
        assert parts.pending.bytes == 0


async def test_a_redirect_of_a_lost_partition_is_not_finished() -> None:
    """Its next owner reads the record again."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.writer.failures.append(AppendError("no", hopeless=False))
        state, offset = harness.state, harness.send(job(reply_from=8))
        await harness.settle()
        harness.revoke(state)
        await harness.settle()
        assert state.ledger is not None
        assert not state.ledger.is_done(offset)


async def test_a_job_that_nobody_could_be_told_of_is_answered_when_it_comes_again() -> None:
    """Its tenant had no reply topic: there is no answer to lead anybody to."""
    async with Harness(tenants=()) as harness:
        harness.send(job())
        await harness.settle()
        assert [each[2]["aril-reason"] for each in harness.dead_letters] == [b"missing_reply_topic"]
        harness.writer.topics.add("replies.acme")
        harness.send(job())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (1,), "a", finish="stop"))
        await harness.settle()
        assert harness.visible("acme", "j1").finished
        harness.send(job(reply_from=8))  # and now there is one
        await harness.settle()
        assert redirects(harness) == [7]
        assert harness.committable == 3


async def test_an_answer_that_broke_off_for_good_is_withdrawn_when_the_job_comes_again() -> None:
    """The second one begins above it: spliced together they would be nobody's answer."""
    async with Harness() as harness:
        harness.send(job())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (1,), "a"))
        await harness.settle()
        harness.writer.failures = [AppendError("TopicAuthorizationFailedError", hopeless=True)]
        harness.step(Output(harness.key_of("hi"), (2,), "b"))
        await harness.settle()
        assert harness.visible("acme", "j1").token_ids == [1]
        harness.send(job())
        await harness.settle()
        harness.step(Output(harness.key_of("hi"), (3,), "c", finish="stop"))
        await harness.settle()
        seen = harness.visible("acme", "j1")
        assert (seen.token_ids, seen.resets, seen.finished) == ([3], 1, True)
        assert harness.committable == 2


async def test_something_else_under_the_id_of_a_job_without_an_answer_is_put_aside() -> None:
    """The first record with an identity has it, answered or not."""
    async with Harness(tenants=()) as harness:
        harness.send(job())
        await harness.settle()
        harness.send(job(prompt="ho"))
        await harness.settle()
        reasons = [each[2]["aril-reason"] for each in harness.dead_letters]
        assert reasons == [b"missing_reply_topic", b"duplicate_id"]

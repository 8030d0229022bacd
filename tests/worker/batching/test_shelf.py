"""Beyond a tenant's part of the look-ahead jobs keep their places, and are read again in time."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import (
    Cancel,
    DoneEvent,
    ErrorCode,
    ErrorEvent,
    Job,
    Message,
    encode_request,
    question_of,
)
from aril.worker.batching import shelf
from aril.worker.batching.shelf import put_away, take_back
from aril.worker.engine.request import Output
from aril.worker.queue.commit_text import BASE_END
from aril.worker.queue.done_list import encode_from
from aril.worker.queue.ledger import Checkpoint
from aril.worker.replies.producer import AppendError
from aril.worker.stages import Stage
from aril.worker.takeover.readback import LogRecord, OutOfRangeError, ReadError
from tests.support.harness import Harness

if TYPE_CHECKING:
    from collections.abc import Callable

    from aril.worker.job import Entry, Partition

ROWS = 2
MEMORY = 1 << 20
LARGE = 8_000


class JobsLog:
    """The jobs topic; a test may take records out of it, or let reads fail."""

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}
        self.start = 0
        self.failures = 0
        self.reads: list[tuple[int, int]] = []

    async def end_of(self, source: Partition) -> int:  # noqa: ARG002 - there is one
        """Nobody asks."""
        raise AssertionError

    async def start_of(self, source: Partition) -> int:  # noqa: ARG002 - there is one
        """Return where it begins."""
        return self.start

    async def offset_at(self, source: Partition, timestamp_ms: int) -> int:  # noqa: ARG002
        """Nobody asks."""
        raise AssertionError

    async def read(
        self,
        source: Partition,  # noqa: ARG002 - there is one
        start: int,
        last: int,
        take: Callable[[LogRecord], None],
    ) -> None:
        """Hand out what is there."""
        self.reads.append((start, last))
        if self.failures:
            self.failures -= 1
            raise ReadError("gone for a moment")
        for offset in range(start, last + 1):
            take(LogRecord(offset, b"key", self.values.get(offset)))


@pytest.fixture
def jobs() -> JobsLog:
    """Return an empty jobs topic."""
    return JobsLog()


def harness_of(jobs: JobsLog) -> Harness:
    """Return a worker with little memory."""
    return Harness(
        max_rows=ROWS, lookahead_bytes=MEMORY, max_prompt_tokens=20_000, jobs_reader=jobs
    )


def send(harness: Harness, jobs: JobsLog, job: Job) -> None:
    """Append a job and deliver it."""
    offset = harness.send(job)
    jobs.values[offset] = encode_request(job)


def flood(harness: Harness, jobs: JobsLog, count: int = 200, **given: Any) -> None:
    """Send one tenant's jobs, which do not find room."""
    for number in range(count):
        prompt = f"{number:03}" + "x" * LARGE
        send(harness, jobs, Job(id=f"a{number:03}", tenant="acme", prompt=prompt, **given))


def serve(harness: Harness) -> int | None:
    """End what runs; return below which offset all is finished."""
    for prompt in harness.running:
        harness.step(Output(harness.key_of(prompt), (1,), "y", finish="stop"))
    return harness.committable


def entry_of(harness: Harness, name: str) -> Entry:
    """Return a job."""
    return next(entry for entry in harness.lifecycle._held.jobs if entry.job_id == name)


async def test_a_flood_is_seen_past_and_served_whole(jobs: JobsLog) -> None:
    """It would take four times the memory; the other tenant behind it is served next."""
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        await harness.settle()
        state = harness.state
        assert not harness.lifecycle.is_full(state.source)
        assert entry_of(harness, "a199").shelved
        assert harness.dispatcher._backlog.bytes < MEMORY
        send(harness, jobs, Job(id="z", tenant="zeta", prompt="z" * 100))
        assert not entry_of(harness, "z").shelved  # its tenant has next to nothing
        reads = len(jobs.reads)
        await harness.until(lambda: "z" * 100 in harness.running)
        assert len(jobs.reads) == reads
        served: list[str] = []
        while len(served) < 201:
            await harness.until(lambda: bool(harness.running))
            for prompt in harness.running:
                served.append(prompt[:3])
                assert len(prompt) == LARGE + 3 or prompt == "z" * 100
                harness.step(Output(harness.key_of(prompt), (1,), "y", finish="stop"))
            assert harness.dispatcher._backlog.bytes < MEMORY
        assert [name for name in served if name != "zzz"] == [f"{n:03}" for n in range(200)]
        await harness.settle()
        assert harness.committable == 201
        assert len(jobs.reads) < 100
        assert not harness.dispatcher._shelf._reading  # nor does anything stay of the partition


@pytest.mark.parametrize("begun", [range(200), range(196, 200)])
async def test_what_others_had_begun_keeps_to_its_part_and_goes_first(
    jobs: JobsLog, begun: range
) -> None:
    """All that a dead fleet had begun may be more than one worker's memory."""
    hint = f"0{BASE_END}{encode_from(0, [begun])}{BASE_END}"
    async with harness_of(jobs) as harness:
        harness.assign(generation=4, end_offset=200, committed=Checkpoint(0, hint))
        flood(harness, jobs)
        await harness.settle()
        assert harness.dispatcher._backlog.bytes < MEMORY
        held = sum(entry.size for entry in harness.state.entries)
        assert held < 2 * MEMORY
        for number in range(20):
            send(harness, jobs, Job(id=f"z{number}", tenant="zeta", prompt=f"z{number:02}"))
        await harness.until(lambda: len(harness.running) >= ROWS)
        served: list[str] = []
        while len(served) < 200 + 20:
            served += [prompt[:3] for prompt in harness.running]
            serve(harness)
            await harness.settle()
        first = {f"{number:03}" for number in begun}
        # Rows are given by shares where both are there, and a few had come in before.
        at = [place for place, name in enumerate(served) if name in first]
        assert at[min(len(at), 4) - 1] < 20
        assert sorted(served) == sorted(
            [f"{n:03}" for n in range(200)] + [f"z{n:02}" for n in range(20)]
        )


async def test_what_the_log_does_not_have_any_more_ends_in_an_error(jobs: JobsLog) -> None:
    """Its tenant may send it again; what is still there is served."""
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        await harness.settle()
        shelved = [e.job_id for e in harness.lifecycle._held.jobs if e.shelved]
        jobs.start = 100
        await harness.until(lambda: serve(harness) == 200)
        for name in (f"a{n:03}" for n in range(200)):
            terminal = harness.visible("acme", name).terminal
            gone = name in shelved and int(name[1:]) < 100
            assert isinstance(terminal, ErrorEvent) == gone
            if isinstance(terminal, ErrorEvent):
                assert terminal.code is ErrorCode.INTERNAL
                assert terminal.retryable


async def test_another_record_at_its_place_is_not_taken_for_it(jobs: JobsLog) -> None:
    """The topic was made anew: what stands there is not what was asked."""
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        await harness.settle()
        entry = entry_of(harness, "a150")
        other = encode_request(Job(id="a150", tenant="acme", prompt="another"))
        assert not take_back(entry, other)
        assert not take_back(entry, b"\xc1")
        assert entry.shelved


async def test_a_log_that_does_not_answer_is_asked_again(
    jobs: JobsLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tenant's turn waits, and then all are served."""
    monkeypatch.setattr(shelf, "RETRY_SECONDS", 0.0)
    async with harness_of(jobs) as harness:
        jobs.failures = 3
        flood(harness, jobs)
        await harness.until(lambda: serve(harness) == 200)
        assert jobs.failures == 0


async def test_a_shelved_job_can_be_cancelled(jobs: JobsLog) -> None:
    """Its end has its metadata, and nothing is read for that."""
    async with harness_of(jobs) as harness:
        flood(harness, jobs, metadata={"k": "v"})
        await harness.settle()
        reads = len(jobs.reads)
        assert entry_of(harness, "a199").stage is Stage.WAITING
        harness.send(encode_request(Cancel(id="a199", tenant="acme")))
        await harness.settle()
        terminal = harness.visible("acme", "a199").terminal
        assert isinstance(terminal, ErrorEvent)
        assert (terminal.code, terminal.metadata) == (ErrorCode.CANCELLED, {"k": "v"})
        assert len(jobs.reads) == reads


async def test_a_dead_letter_is_whole(jobs: JobsLog) -> None:
    """Nothing can be told to its tenant: the record is put aside as it was sent."""
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        await harness.settle()
        harness.writer.failures.append(AppendError("TopicAuthorizationFailedError", hopeless=True))
        harness.send(encode_request(Cancel(id="a199", tenant="acme")))
        await harness.until(lambda: bool(harness.dead_letters))
        ((_, value, headers),) = harness.dead_letters
        assert value == jobs.values[199]
        assert "aril-left-out" not in headers


@pytest.mark.parametrize(
    "given",
    [
        {"prompt": "x" * 100},
        {"messages": (Message(role="user", content="x" * 100),)},
        {"messages": (Message(role="user", content="x" * 100),), "tools": ({"name": "t"},)},
        {"token_ids": (1, 2, 3) * 40},
    ],
    ids="+".join,
)
async def test_put_away_and_taken_back_it_is_the_same(given: dict[str, Any]) -> None:
    """Whatever it says, and with what it said let go of it is still that kind of job."""
    async with Harness(max_rows=1) as harness:
        job = Job(id="a", tenant="acme", priority=3, metadata={"k": "v"}, **given)
        harness.send(job)
        (entry,) = harness.lifecycle._held.jobs
        record, size, cost = entry.record, entry.size, entry.cost
        put_away(entry)
        assert entry.shelved
        assert entry.size < size == entry.whole_size
        assert entry.cost == cost
        assert entry.job is not None
        assert (entry.job.messages is None) == (job.messages is None)
        assert "x" * 65 not in repr(entry.job.model_dump())
        assert take_back(entry, encode_request(job))
        assert entry.record == record
        assert question_of(entry.job) == question_of(job)
        await harness.settle()


async def test_a_job_that_becomes_whole_while_it_is_claimed_is_counted_as_it_was(
    jobs: JobsLog,
) -> None:
    """Its claim was counted lean and taken off whole: what was under way was below nothing."""
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        await harness.settle()
        entry = entry_of(harness, "a199")
        pending = harness.lifecycle.parts.pending
        assert entry.shelved
        entry.owned = False
        harness.writer.held = asyncio.Event()
        harness.dispatcher.when_whole(entry, lambda: None)
        harness.send(encode_request(Cancel(id="a199", tenant="acme")))
        assert entry.stage is Stage.CONDEMNED
        await harness.until(lambda: not entry.shelved)
        harness.writer.held.set()
        await harness.until(lambda: entry.settled)
        assert pending.bytes == 0


async def test_what_nobody_expects_of_a_read_stops_no_tenant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The read is tried again; its jobs do not wait for ever."""
    monkeypatch.setattr(shelf, "RETRY_SECONDS", 0.0)

    class Odd(JobsLog):
        odd = 1

        async def start_of(self, source: Partition) -> int:
            if self.odd:
                self.odd -= 1
                raise ValueError("a bug")
            return await super().start_of(source)

    jobs = Odd()
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        for _ in range(200):
            await harness.settle(5)
            for prompt in harness.running:
                harness.step(Output(harness.key_of(prompt), (1,), "y", finish="stop"))
        await harness.until(lambda: harness.committable == 200)


async def test_what_a_log_that_was_made_anew_does_not_have_yet_ends_in_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is shorter than the old one: its jobs would be asked for until their time was up."""
    monkeypatch.setattr(shelf, "RETRY_SECONDS", 0.0)

    class Shorter(JobsLog):
        end = 10**6

        async def read(
            self, source: Partition, start: int, last: int, take: Callable[[LogRecord], None]
        ) -> None:
            if start > self.end:
                raise OutOfRangeError("OffsetOutOfRangeError")
            await super().read(source, start, min(last, self.end), take)
            if last > self.end:
                raise ReadError("silent")

    jobs = Shorter()
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        await harness.settle()
        jobs.end = 120
        for _ in range(250):
            await harness.settle(5)
            for prompt in harness.running:
                harness.step(Output(harness.key_of(prompt), (1,), "y", finish="stop"))
        await harness.until(lambda: harness.committable == 200)
        assert isinstance(harness.visible("acme", "a199").terminal, ErrorEvent)
        assert isinstance(harness.visible("acme", "a120").terminal, DoneEvent)


async def test_a_partition_that_does_not_answer_is_read_by_one_at_a_time(jobs: JobsLog) -> None:
    """There are few readers; those of other partitions' jobs are not all taken by it."""
    reading = most = 0
    answers = asyncio.Event()

    class Silent(JobsLog):
        async def start_of(self, source: Partition) -> int:
            nonlocal reading, most
            reading += 1
            most = max(most, reading)
            await answers.wait()
            reading -= 1
            return await super().start_of(source)

    jobs = Silent()
    async with harness_of(jobs) as harness:
        flood(harness, jobs)
        await harness.settle()
        waiting = [entry for entry in harness.lifecycle._held.jobs if entry.shelved]
        for entry in waiting[-20:]:
            harness.dispatcher.when_whole(entry, lambda: None)
        await harness.settle()
        answers.set()
        await harness.until(lambda: not any(entry.shelved for entry in waiting[-20:]))
        assert most == 1

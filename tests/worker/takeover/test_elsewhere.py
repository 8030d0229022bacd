"""Jobs that a worker which has left the group still runs to their ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from aril.schemas import ErrorCode, ErrorEvent, JobError
from aril.worker.engine.request import Output
from aril.worker.takeover.readback import ReadError
from tests.support.harness import Harness
from tests.support.older_jobs import job, kinds

if TYPE_CHECKING:
    from aril.worker.job import Partition

SECONDS = 60.0


class Clock:
    """A clock that stands."""

    def __init__(self, now: float) -> None:
        self._now = now

    def monotonic(self) -> float:
        """Return what it says."""
        return self._now


class Pair:
    """A worker that leaves, with jobs running, and the one that has its partition next."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.old = Harness()
        self.new = Harness(worker="w2", writer=self.old.writer)
        self._seconds = seconds

    async def leave(self, count: int) -> list[str]:
        """Run as many of the jobs as there are rows; leave; return the prompts that run on."""
        offsets = [self.old.send(job(f"j{number}")) for number in range(count)]
        await self.old.settle()
        going_on = self.old.lifecycle.hand_on()
        state = self.old.state
        state.goes_on(going_on[state.source], self._seconds)
        state.part(3)
        told = state.to_commit()
        assert told is not None
        heir = self.new.assign(generation=4, end_offset=count, committed=told)
        heir._elsewhere_until += time.monotonic()  # a harness wins its partitions at 0
        for number, offset in enumerate(offsets):
            self.new.deliver(heir, offset, job(f"j{number}"))
        return self.old.running

    async def look(self) -> None:
        """Have the new owner look at the logs, as it does by the clock."""
        await self.new.settle()
        await self.new.lifecycle.parts.elsewhere.look()
        await self.new.settle()

    def step(self, prompt: str, text: str, *, last: bool = False) -> None:
        """Bring a token of a job that runs on."""
        self.old.step(Output(self.old.key_of(prompt), (1,), text, finish="stop" if last else None))


@pytest.fixture
async def pair() -> Pair:
    """Return two workers."""
    return Pair()


async def test_what_runs_goes_on_and_what_waits_begins_elsewhere(pair: Pair) -> None:
    """No stream changes its writer, and no new job waits for the one that leaves."""
    async with pair.old, pair.new:
        rows = pair.old.settings.max_rows
        running = await pair.leave(3 * rows)
        assert len(running) == rows  # what is in the engine beyond them has not begun
        for _ in range(5):
            for prompt in running:
                pair.step(prompt, "a")
            await pair.old.settle()
            await pair.look()
        assert pair.new.running
        assert not {*pair.new.running} & {*running}
        for prompt in running:
            pair.step(prompt, "b", last=True)
        await pair.old.settle()
        while waiting := pair.new.running:
            for prompt in waiting:
                pair.new.step(Output(pair.new.key_of(prompt), (1,), "a", finish="stop"))
            await pair.new.settle()
        await pair.look()
        await pair.look()
        assert pair.new.committable == 3 * rows
        for number in range(3 * rows):
            begun = f"prompt of j{number}" in running
            stream = pair.new.visible("acme", f"j{number}")
            assert stream.token_ids == [1] * (6 if begun else 1)
            assert stream.resets == 0
            assert kinds(pair.new, f"j{number}").count("done") == 1


async def test_what_stands_still_is_taken_over(pair: Pair) -> None:
    """Its worker has died after all: nobody waits until its time is over."""
    async with pair.old, pair.new:
        running = await pair.leave(2)
        for prompt in running:
            pair.step(prompt, "a")
        await pair.old.settle()
        await pair.look()
        assert pair.new.running == []
        await pair.look()
        assert {*pair.new.running} == {*running}
        request = next(iter(pair.new.engine.requests.values()))
        assert request.resume_ids == (1,)
        for prompt in running:
            pair.new.step(Output(pair.new.key_of(prompt), (2,), "b", finish="stop"))
            pair.step(prompt, "late")  # by a zombie, under an epoch that is over
        await pair.old.settle()
        await pair.new.settle()
        for number in range(2):
            assert pair.new.visible("acme", f"j{number}").token_ids == [1, 2]


async def test_its_time_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much comes in its log."""
    pair = Pair()
    async with pair.old, pair.new:
        [prompt] = await pair.leave(1)
        now = time.monotonic()
        for seconds, running in ((0.0, 0), (SECONDS - 5.0, 0), (SECONDS + 5.0, 1)):
            pair.step(prompt, "a")
            await pair.old.settle()
            with monkeypatch.context() as patched:
                patched.setattr("aril.worker.takeover.elsewhere.time", Clock(now + seconds))
                await pair.look()
            assert len(pair.new.running) == running


async def test_a_log_that_cannot_be_read_is_left_alone(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is known of it: its time counts."""
    asked = 0

    async def end_of(_: Partition) -> int:
        nonlocal asked
        asked += 1
        raise ReadError("?")

    monkeypatch.setattr(pair.new.reader, "end_of", end_of)
    async with pair.old, pair.new:
        await pair.leave(1)
        for _ in range(5):
            await pair.look()
        assert asked == 5
        assert pair.new.running == []


async def test_a_cancel_does_not_wait(pair: Pair) -> None:
    """It is claimed at once: the other one's tokens count no more."""
    async with pair.old, pair.new:
        [prompt] = await pair.leave(1)
        pair.step(prompt, "a")
        await pair.old.settle()
        entry = pair.new.state.find("acme", "j0")
        assert entry is not None
        pair.new.lifecycle.end(entry, JobError(ErrorCode.CANCELLED, "cancelled by its tenant"))
        await pair.new.settle()
        pair.step(prompt, "b")
        await pair.old.settle()
        await pair.look()
        stream = pair.new.visible("acme", "j0")
        assert stream.token_ids == [1]
        assert stream.terminal is not None
        assert pair.new.running == []


async def test_a_deadline_holds_for_what_goes_on() -> None:
    """There may be nobody else who would end it."""
    async with Harness() as leaving:
        leaving.send(job("j0", deadline_ms=200))
        await leaving.settle()
        assert leaving.running == ["prompt of j0"]
        assert leaving.lifecycle.hand_on() == {leaving.state.source: [0]}
        await leaving.until(lambda: leaving.visible("acme", "j0").terminal is not None)
        terminal = leaving.visible("acme", "j0").terminal
        assert isinstance(terminal, ErrorEvent)
        assert terminal.code is ErrorCode.DEADLINE_EXCEEDED

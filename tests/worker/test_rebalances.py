"""What goes on across a rebalance, what is handed on, and what is told to the next owner."""

from __future__ import annotations

import pytest

from aril.schemas import (
    ClaimRecord,
    Epoch,
    ErrorCode,
    ErrorEvent,
    JobError,
    ReleaseRecord,
    Sampling,
)
from aril.worker.engine.request import Output
from aril.worker.job import Partition
from tests.support.harness import Harness
from tests.support.older_jobs import OLD, before, claim, job, kinds


async def begin(harness: Harness) -> int:
    """Let a job run that is fresh to its owner; return its offset."""
    while next(harness.offsets) < OLD:
        pass
    offset = harness.send(job())
    await harness.settle()
    return offset


async def test_a_running_job_goes_on_across_a_rebalance(harness: Harness) -> None:
    """The partition came back to the same member in the next generation: no claim, no pause."""
    offset = await begin(harness)
    key = harness.key_of("prompt of j1")
    harness.step(Output(key, (1,), "a"))
    await harness.settle()
    harness.revoke(harness.state)
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
    offset = await begin(harness)
    harness.revoke(harness.state)
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a", finish="stop"))
    await harness.settle()
    state = harness.assign(generation=4, end_offset=offset + 1)
    assert harness.committable is None
    harness.deliver(state, offset, job())
    await harness.settle()
    assert harness.committable == offset + 1
    assert kinds(harness) == ["tokens", "done"]


async def fill(harness: Harness, count: int) -> list[int]:
    """Send more fresh jobs than there are rows; return their offsets."""
    while next(harness.offsets) < OLD:
        pass
    offsets = [harness.send(job(f"j{number}")) for number in range(count)]
    await harness.settle()
    return offsets


async def finish_all(harness: Harness) -> int:
    """Let what runs end, and what comes after it; return how many that were."""
    count = 0
    while running := harness.running:
        for prompt in running:
            harness.step(Output(harness.key_of(prompt), (1,), "a", finish="stop"))
        count += len(running)
        await harness.settle()
    return count


async def test_a_backlog_stays_across_a_rebalance(harness: Harness) -> None:
    """What waits is as little claimed as what runs; no turn comes while it is unknown whose."""
    rows = harness.settings.max_rows
    offsets = await fill(harness, 4 * rows)
    harness.revoke(harness.state)
    assert await finish_all(harness) < 3 * rows  # what ran, and what was prepared
    state = harness.assign(generation=4, end_offset=offsets[-1] + 1)
    await harness.settle()
    assert len(harness.running) >= rows
    assert not harness.lifecycle.is_full(state.source)
    for number, offset in enumerate(offsets):
        harness.deliver(state, offset, job(f"j{number}"))
    await finish_all(harness)
    assert harness.committable == offsets[-1] + 1
    for number in range(len(offsets)):
        assert kinds(harness, f"j{number}") == ["tokens", "done"]
    assert harness.unexpected_events == 0


async def test_what_waited_is_fresh_to_the_next_owner(harness: Harness) -> None:
    """Its last commit says so, in the next generation; what had been begun is claimed."""
    rows = harness.settings.max_rows
    offsets = await fill(harness, 6 * rows)
    begun = {entry.record.offset for entry in harness.state.entries if entry.touched}
    assert rows <= len(begun) < 3 * rows
    harness.revoke(harness.state)
    told = harness.state.checkpoint()
    async with Harness(worker="w2", writer=harness.writer) as other:
        state = other.assign(generation=4, end_offset=offsets[-1] + 1, committed=told)
        for number, offset in enumerate(offsets):
            other.deliver(state, offset, job(f"j{number}"))
        await other.settle()
        await finish_all(other)
        for number, offset in enumerate(offsets):
            expected = ["tokens", "done"]
            assert kinds(other, f"j{number}") == ["claim"] * (offset in begun) + expected
    harness.assign(generation=4, member="member", source=Partition("jobs", 1))
    await harness.settle()
    assert harness.running == []


async def test_what_a_killed_worker_had_begun_goes_before_what_waits(harness: Harness) -> None:
    """Its last commit says which jobs were under way: their readers see them stand still."""
    rows = harness.settings.max_rows
    offsets = await fill(harness, rows)  # what comes later would go before these
    late = [harness.send(job(f"late{number}", priority=1)) for number in range(4 * rows)]
    began = harness.running
    assert len(began) == rows
    told = harness.state.to_commit()
    async with Harness(worker="w2", writer=harness.writer) as other:
        state = other.assign(generation=5, end_offset=late[-1] + 1, committed=told)
        for number, offset in enumerate(offsets):
            other.deliver(state, offset, job(f"j{number}"))
        for number, offset in enumerate(late):
            other.deliver(state, offset, job(f"late{number}", priority=1))
        await other.settle()
        assert {*other.running[:rows]} == {*began}
        await finish_all(other)


async def test_nothing_that_is_read_while_a_worker_leaves_is_begun(harness: Harness) -> None:
    """It says on parting that nobody has begun it, so no turn may come after."""
    [begun] = await fill(harness, 1)
    harness.lifecycle.release_all()
    late = harness.send(job("late"))
    await harness.settle()
    assert harness.running == []
    assert kinds(harness, "late") == []
    harness.state.revoked = True
    told = harness.state.checkpoint()
    heir = harness.assign(generation=4, end_offset=late + 1, member="other", committed=told)
    assert [heir.is_fresh(offset) for offset in (begun, late)] == [False, True]


async def test_what_was_not_read_before_stays_fresh(harness: Harness) -> None:
    """Nobody had the partition meanwhile: such a job needs no claim; one that was dropped does."""
    [dropped] = await fill(harness, 1)
    unread = next(harness.offsets)
    harness.lifecycle.end(harness.state.entries[0], JobError(ErrorCode.CANCELLED, "-"))
    harness.state.entries[0].owned = False
    harness.revoke(harness.state)
    state = harness.assign(generation=4, end_offset=unread + 1)
    assert state.fresh_from == dropped + 1
    harness.deliver(state, dropped, job("j0"))
    harness.deliver(state, unread, job("j1"))
    await harness.settle()
    assert kinds(harness, "j0") == ["claim"]
    assert kinds(harness, "j1") == []
    assert sorted(harness.running) == ["prompt of j0", "prompt of j1"]


async def test_what_was_answered_is_known_after_a_rebalance(harness: Harness) -> None:
    """Be its commit refused, or be it sent again: it is a repeat, and nobody is asked anything."""
    [offset] = await fill(harness, 1)
    await finish_all(harness)
    harness.revoke(harness.state)
    state = harness.assign(generation=4, end_offset=offset + 1)
    harness.deliver(state, offset, job("j0"))
    harness.deliver(state, offset + 1, job("j0"))
    await harness.settle()
    assert kinds(harness, "j0") == ["tokens", "done"]
    assert harness.running == []
    assert harness.committable == offset + 2


@pytest.mark.parametrize("change", ["generation", "member", "partition"])
async def test_a_missed_generation_makes_it_a_take_over(harness: Harness, change: str) -> None:
    """Somebody may have owned it meanwhile: it stops, is released, and claimed if it returns."""
    offset = await begin(harness)
    key = harness.key_of("prompt of j1")
    harness.step(Output(key, (1,), "a"))
    await harness.settle()
    harness.revoke(harness.state)
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
    harness.revoke(harness.state)
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
    harness.lifecycle.release_all()
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
    harness.lifecycle.release_all()
    await harness.answers.farewell(1.0)
    last = harness.replies("acme", "j1")[-1]
    assert isinstance(last, ReleaseRecord)
    assert last.epoch == harness.replies("acme", "j1")[-2].epoch


async def test_what_runs_in_a_lost_engine_is_not_released(harness: Harness) -> None:
    """It may be to blame, so its next owner counts a strike; what only waits is released."""
    harness.owned = False  # so that the take-over goes on for ever
    before(harness, ClaimRecord(job="claimed", epoch=Epoch(9, 1), worker="w0"))
    harness.send(job("claimed"))
    await begin(harness)
    harness.step(Output(harness.key_of("prompt of j1"), (1,), "a"))
    await harness.settle()
    harness.engine.lost = True
    harness.lifecycle.release_all()
    await harness.answers.farewell(1.0)
    assert kinds(harness) == ["tokens"]
    assert kinds(harness, "claimed")[-1] == "release"
    assert harness.running == []


async def test_a_job_whose_engine_fails_is_suspected_and_convicted(harness: Harness) -> None:
    """Two workers that left it so, and it runs alone; three alone, and it ends in crash_loop."""
    offset = harness.send(job())
    await harness.settle()
    generation = harness.state.membership.generation
    while harness.running:
        generation += 1
        harness.engine.lost = True
        harness.lifecycle.release_all()
        harness.engine.lost = False
        parts = harness.lifecycle.parts  # from here on those of another process, the next owner
        parts.claims._worker = parts.answers._worker = f"w{generation}"
        harness.revoke(harness.state)
        harness.deliver(harness.assign(generation=generation, end_offset=OLD), offset, job())
        await harness.settle()
    terminal = harness.visible("acme", "j1").terminal
    assert isinstance(terminal, ErrorEvent)
    assert terminal.code is ErrorCode.CRASH_LOOP
    assert generation == 3 + 2 + 3  # two suspect it, three convict it

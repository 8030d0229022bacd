"""Steps that are launched ahead, under any mix of jobs, cancellations and memory pressure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.ahead_run import AheadRun
from tests.support.generation import CacheModel, request
from tests.support.scheduler_run import Limits, Run
from tests.worker.engine.test_prefix_properties import (
    ASKED,
    LIMITS,
    ROPES,
    TOKENS,
    Asked,
    job_of,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from aril.worker.engine.rope_lengths import RowRope
    from aril.worker.engine.step_plan import StepPlan

ROOMY = Limits(rows=4, tokens=64, blocks=64, slots=2, passes=4)


def cut(answer: list[int], begun: int, ends: Collection[int]) -> list[int]:
    """Return an answer up to the first token that ends it and is new."""
    for at in range(begun, len(answer)):
        if answer[at] in ends:
            return answer[: at + 1]
    return answer


@settings(max_examples=300, deadline=None)
@given(
    limits=LIMITS,
    rope=st.sampled_from(ROPES),
    asked=ASKED,
    vocabulary=st.sampled_from([TOKENS, 7]),
    ends=st.sets(st.integers(1, 6), max_size=2),
    delays=st.lists(st.integers(0, 3), min_size=4, max_size=4),
    prefix_cache=st.booleans(),
)
def test_answers_are_those_of_an_undisturbed_run(
    limits: Limits,
    rope: RowRope,
    asked: list[Asked],
    vocabulary: int,
    ends: set[int],
    delays: list[int],
    *,
    prefix_cache: bool,
) -> None:
    """Whoever ends, is cancelled or preempted, and whenever; one who is cancelled has a beginning.

    In every step (`AheadRun`): what is computed is the sequence's own; no block is handed out that
    the step in flight writes; blocks are held by those who run, or late, and free in the end.
    """
    run = AheadRun(
        limits,
        ends,
        rope=rope,
        vocabulary=vocabulary,
        prefix_cache=prefix_cache,
        delays=delays,
    )
    cancelled = set()
    for key, each in enumerate(asked):
        run.submit(job_of(key, each, rope))
        for _ in range(each.steps):
            run.step()
        if each.cancel is not None:
            if each.cancel in run.unfinished:
                cancelled.add(each.cancel)
            run.cancel(each.cancel)
    run.drain()
    for key, job in run.jobs.items():
        whole = CacheModel.answer(job, rope, vocabulary=vocabulary)
        whole = cut(whole, len(job.resume_ids), ends)
        own = run.answers.get(key, [*job.resume_ids])
        assert own == (whole[: len(own)] if key in cancelled else whole)


def test_a_step_is_launched_before_the_last_one_is_read() -> None:
    """Each but the first and the last, and never two before one is read."""
    run = AheadRun(ROOMY)
    for _ in range(2):
        run.add(5, 6, None)
    run.drain()
    launches = [("launch", number) for number in range(1, 7)]
    reads = [("read", number) for number in range(1, 7)]
    ahead = [pair for both in zip(launches[1:], reads[:-1], strict=True) for pair in both]
    assert run.order == [launches[0], *ahead, reads[-1]]


def test_who_has_ended_runs_once_too_often_and_nothing_is_left_of_it() -> None:
    """Its blocks are held until that step is settled; the token after the end is told to nobody."""
    job = request(0, 4, max_tokens=20)
    answer = CacheModel.answer(job)
    run = AheadRun(ROOMY, ends=[answer[2]])
    run.submit(job)
    for _ in range(3):
        run.step()
    assert run.answers[0] == answer[:3]
    assert not run.scheduler.running
    assert run.scheduler.blocks.used == len(run.held_beside()) == 3  # 4 + 2 tokens, one more begun
    assert run.model.computed == 4 + 3
    named = run.scheduler.blocks.named
    run.drain()
    assert run.scheduler.blocks.named == named == 2  # whole ones that it has computed for itself
    assert run.answers[0] == answer[:3]


def test_a_length_that_is_known_is_not_passed() -> None:
    """Nothing is computed once too often where `max_tokens` ends the answer."""
    run = AheadRun(ROOMY)
    run.add(4, 5, None)
    run.drain()
    assert run.model.computed == 4 + 4


def test_a_beginning_is_computed_once_also_while_its_step_is_in_flight() -> None:
    """Jobs that come together wait for blocks that have no name as yet."""
    run = AheadRun(Limits(rows=4, tokens=6, blocks=64, slots=2, passes=4))
    shared = tuple(range(12))
    for key in range(3):
        run.submit(request(key, (*shared, 100 + key), max_tokens=2))
    run.drain()
    assert run.model.computed == len(shared) + 3 * 2
    assert run.scheduler.prefixes.hits == 2


def test_a_cancelled_step_is_settled_before_its_blocks_are_anothers() -> None:
    """One that needs all of the cache waits for it, and has it then."""
    run = AheadRun(Limits(rows=2, tokens=8, blocks=4, slots=2, passes=4))
    first = run.add(5, 7, None)
    run.step()
    run.cancel(first)
    second = run.add(8, 4, None)
    run.drain()
    assert run.answers[second] == CacheModel.answer(run.jobs[second])
    assert run.order.index(("read", 2)) < run.order.index(("launch", 3))


def test_who_waits_for_a_block_of_one_that_is_cancelled_computes_it() -> None:
    """Once the step that was to compute it is settled: it gets no name."""
    run = AheadRun(Limits(rows=4, tokens=6, blocks=64, slots=2, passes=4))
    shared = tuple(range(12))
    for key in range(2):
        run.submit(request(key, (*shared, 100 + key), max_tokens=2))
    run.step()
    run.cancel(0)
    run.drain()
    assert run.answers[1] == CacheModel.answer(run.jobs[1])


def test_nobody_is_preempted_while_a_step_is_in_flight() -> None:
    """The step is read first, and then somebody is: both answers need more than there is."""
    run = AheadRun(Limits(rows=2, tokens=8, blocks=6, slots=2, passes=4))
    for _ in range(2):
        run.add(3, 12, None)
    preempted = 0
    plan_step = run.scheduler.plan

    def plan() -> StepPlan | None:
        nonlocal preempted
        in_flight = run.scheduler.in_flight.plan
        found = plan_step()
        if found is not None:
            preempted += found.preempted
            assert in_flight is None or not found.preempted
        return found

    run.scheduler.plan = plan  # type: ignore[method-assign]
    run.drain()
    assert run.answers == {key: CacheModel.answer(job) for key, job in run.jobs.items()}
    assert preempted


@pytest.mark.parametrize("kind", [Run, AheadRun])
def test_an_answer_is_found_as_the_next_prompts_beginning(kind: type[Run]) -> None:
    """Whole: blocks that end in a token that nobody had read when they were computed, too."""
    run = kind(ROOMY)
    first = run.add(4, 9, None)  # 13 tokens, 12 of them computed
    run.drain()
    told = (*run.jobs[first].prompt_ids, *run.answers[first])
    run.submit(request(1, told, max_tokens=1))
    run.drain()
    assert run.scheduler.prefixes.tokens == 12

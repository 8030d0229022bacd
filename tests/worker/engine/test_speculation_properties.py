"""Drafts under any mix of jobs, cancellations, preemptions and memory pressure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.worker.engine.speculation import MOST_A_STEP
from tests.support.drafting import KINDS, Kind, always
from tests.support.generation import PLAIN, CacheModel, request
from tests.support.scheduler_run import KV_BLOCK, Limits, Run
from tests.worker.engine.test_prefix_properties import ASKED, LIMITS, ROPES, TOKENS, Asked, job_of

if TYPE_CHECKING:
    from aril.worker.engine.rope_lengths import RowRope
    from aril.worker.engine.speculation import Speculation
    from aril.worker.engine.step_plan import StepPlan

ROOMY = Limits(rows=4, tokens=64, blocks=64, slots=2, passes=4)


@settings(max_examples=60, deadline=None)
@given(
    limits=LIMITS,
    rope=st.sampled_from(ROPES),
    asked=ASKED,
    kind=st.sampled_from(KINDS),
    most=st.integers(1, 9),
)
def test_drafts_change_no_answer_and_no_plan(
    limits: Limits, rope: RowRope, asked: list[Asked], kind: Kind, most: int
) -> None:
    """Whatever is guessed, each answer is that of an undisturbed run.

    In every step (`Run`): the plan is the one without drafts and the drafts beside it; what counts
    as computed is the sequence's own; named blocks are written by nobody.
    """
    jobs = [job_of(key, each, rope) for key, each in enumerate(asked)]
    answers = {job.key: CacheModel.answer(job, rope, vocabulary=TOKENS) for job in jobs}
    speculation = always(kind, most, answers, TOKENS)
    run = Run(limits, rope=rope, vocabulary=TOKENS, speculation=speculation)
    for job, each in zip(jobs, asked, strict=True):
        run.submit(job)
        for _ in range(each.steps):
            run.step()
        if each.cancel is not None:
            run.cancel(each.cancel)
    run.drain()
    assert run.answers == {key: answers[key] for key in run.answers}
    assert speculation.accepted <= speculation.drafted
    if kind == "wrong":
        assert speculation.accepted == 0
    if kind == "right":
        assert speculation.accepted == speculation.drafted


def run_of(speculation: Speculation | None, limits: Limits = ROOMY, rows: int = 4) -> Run:
    """Answer jobs that come together, by 24 tokens each."""
    run = Run(limits, speculation=speculation)
    for _ in range(rows):
        run.add(5, 24, None)
    run.drain()
    return run


def test_right_drafts_save_steps() -> None:
    """What is drafted reaches into the next block: 24 tokens in 6 steps, the prompts' included."""
    jobs = [request(key, 5, max_tokens=24) for key in range(4)]
    answers = {job.key: CacheModel.answer(job) for job in jobs}
    bare = run_of(None)
    drafted = run_of(always("right", 7, answers, 9973))
    assert drafted.answers == bare.answers == answers
    assert (bare.steps, drafted.steps) == (24, 6)
    assert run_of(always("wrong", 7, answers, 9973)).steps == 24


@pytest.mark.parametrize("tokens", [4, 6, 9])
def test_drafts_keep_to_the_budget(tokens: int) -> None:
    """Prompts and other rows have theirs first (`Run` compares), then the oldest drafts."""
    answers = {key: CacheModel.answer(request(key, 5, max_tokens=24)) for key in range(4)}
    limits = replace(ROOMY, tokens=tokens)
    run = run_of(always("right", 7, answers, 9973), limits)
    assert run.answers == answers
    assert run.steps <= run_of(None, limits).steps


def test_a_step_drafts_few_tokens() -> None:
    """However many rows there are: each token has logits of a whole vocabulary."""
    rows = 40
    jobs = [request(key, 2, max_tokens=60) for key in range(rows)]
    answers = {job.key: CacheModel.answer(job) for job in jobs}
    limits = replace(ROOMY, rows=rows, tokens=2_000, blocks=40 * rows)
    run = Run(limits, speculation=always("right", 7, answers, 9973))
    for job in jobs:
        run.submit(job)
    run.step()
    plan = run.scheduler.plan()
    assert plan is not None
    assert sum(len(row.draft) for row in plan.rows) == MOST_A_STEP


def test_many_rows_draft_nothing() -> None:
    """A row more costs about as much then as it brings, however sure it is."""
    rows = MOST_A_STEP + 1
    answers = {key: CacheModel.answer(request(key, 2, max_tokens=9)) for key in range(rows)}
    limits = replace(ROOMY, rows=rows, tokens=2_000, blocks=9 * rows)
    for count in (rows, rows - 1):
        run = Run(limits, speculation=always("right", 7, answers, 9973))
        for _ in range(count):
            run.add(2, 9, None)
        run.step()
        assert any(drafted(run.scheduler.plan())) == (count < rows)


def drafted(plan: StepPlan | None) -> list[int]:
    """Tokens drafted by each row."""
    assert plan is not None
    return [len(row.draft) for row in plan.rows]


def test_no_block_is_taken_that_another_will_need() -> None:
    """Where blocks are scarce, a draft ends where the sequence's own blocks do."""
    answers = {key: CacheModel.answer(request(key, 5, max_tokens=24)) for key in range(2)}
    found = []
    for blocks in (64, 20):
        limits = replace(ROOMY, blocks=blocks)
        run = Run(limits, speculation=always("right", 7, answers, 9973))
        for _ in range(2):
            run.add(5, 24, None)
        run.step()
        run.scheduler.blocks.allocate(run.scheduler.blocks.free - blocks // 16)
        found.append(drafted(run.scheduler.plan()))
    # Of 6 tokens, one known: the second block is full, and one more may be taken early.
    assert found == [[KV_BLOCK] * 2, [0, 0]]


def test_a_switch_of_frequencies_is_met_by_a_known_token() -> None:
    """A draft ends where RoPE switches: what stands beyond has other frequencies."""
    for rope in ROPES[1:]:
        job = request(0, (1, 0), max_tokens=16)
        answer = CacheModel.answer(job, rope, vocabulary=TOKENS)
        run = Run(
            ROOMY, rope=rope, vocabulary=TOKENS, speculation=always("right", 9, {0: answer}, TOKENS)
        )
        run.submit(job)
        run.drain()
        assert run.answers[0] == answer
        bare = Run(ROOMY, rope=PLAIN, vocabulary=TOKENS)
        bare.submit(job)
        bare.drain()
        assert run.steps < bare.steps

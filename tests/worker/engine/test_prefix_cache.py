"""Beginnings that are found in the cache, case by case: who shares what, and who must not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aril.schemas import Sampling
from aril.worker.engine.blocks import BlockAllocator
from aril.worker.engine.prefix_cache import PrefixCache
from aril.worker.engine.rope_lengths import RowRope
from aril.worker.engine.sequence import TokenSequence
from tests.support.generation import CacheModel, request
from tests.support.scheduler_run import KV_BLOCK, Limits, Run

if TYPE_CHECKING:
    from aril.worker.engine.request import GenerationRequest

LIMITS = Limits(rows=4, tokens=24, blocks=24, slots=3, passes=64)
PROMPT = tuple(range(1, 12))  # three full blocks and two tokens


def job(key: int, prompt: tuple[int, ...] = PROMPT, **more: Any) -> GenerationRequest:
    """Make a request of one token, or with other fields."""
    fields = {name: more.pop(name) for name in ("max_tokens", "adapter", "resume") if name in more}
    return replace(request(key, prompt, **{"max_tokens": 1, **fields}), **more)


def saved(run: Run, *jobs: GenerationRequest) -> int:
    """Run jobs to their end, and return how many tokens were found and not computed."""
    before = run.scheduler.prefixes.tokens
    for each in jobs:
        run.submit(each)
    run.drain()
    for each in jobs:
        assert run.answers[each.key] == CacheModel.answer(each, run.model.rope)
    return run.scheduler.prefixes.tokens - before


def test_a_later_job_computes_what_is_left() -> None:
    """The full blocks are found; the two tokens behind them are computed."""
    run = Run(LIMITS)
    assert saved(run, job(0)) == 0
    assert saved(run, job(1)) == 9
    assert saved(run, job(2, (*PROMPT[:7], 99, *PROMPT[8:]))) == 6
    assert (run.scheduler.prefixes.hits, run.model.computed) == (2, 11 + 2 + 5)


@pytest.mark.parametrize(("length", "found"), [(1, 0), (3, 0), (4, 3), (6, 3), (7, 6)])
def test_one_token_is_always_computed(length: int, found: int) -> None:
    """The next token is sampled from its logits, so a prompt of whole blocks lacks its last one."""
    run = Run(LIMITS)
    saved(run, job(0))
    assert saved(run, job(1, PROMPT[:length])) == found


def test_jobs_that_come_together_share_while_the_first_computes() -> None:
    """They are admitted and have no row until the blocks are there, even through several chunks."""
    run = Run(replace(LIMITS, tokens=5))
    for key in range(3):
        run.submit(job(key))
    others = job(3, (70, 71))
    rows = []
    while plan := run.scheduler.plan():
        rows.append([(row.sequence.key, row.start, row.count) for row in plan.rows])
        run.scheduler.advance(plan, run.model.run(plan))
        for row in plan.rows:
            if not row.sequence.remaining:
                run.scheduler.remove(row.sequence.key)
        if len(rows) == 1:
            run.submit(others)
    assert rows == [
        [(0, 0, 5)],
        [(0, 5, 5)],
        [(0, 10, 1), (1, 9, 2), (2, 9, 2)],
        [(3, 0, 2)],
    ]


def test_what_the_owner_leaves_of_a_step_goes_to_others() -> None:
    """Who waits for a block takes no budget from those who do not."""
    run = Run(LIMITS)
    for each in (job(0), job(1), job(2, (70, 71))):
        run.submit(each)
    plan = run.scheduler.plan()
    assert plan is not None
    assert [row.sequence.key for row in plan.rows] == [0, 2]
    assert [one.key for one in run.scheduler.running] == [0, 1, 2]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_nobody_waits_for_an_owner_that_was_cancelled(steps: int) -> None:
    """The next one takes what there is and computes the rest itself."""
    run = Run(replace(LIMITS, tokens=5))
    for key in range(3):
        run.submit(job(key))
    for _ in range(steps):
        run.step()
    run.cancel(0)
    run.drain()
    assert run.model.computed == [11 + 2, 5 + 8 + 2, 10 + 2 + 2][steps]


def test_a_preempted_job_finds_itself() -> None:
    """What nobody needed meanwhile is still there when it comes back."""
    run = Run(replace(LIMITS, blocks=7, tokens=12))
    older, younger = job(0, (50, 51), max_tokens=14), job(1, max_tokens=8)
    run.submit(older)
    run.submit(younger)
    preempted = 0
    while plan := run.scheduler.plan():
        preempted += plan.preempted
        run.scheduler.advance(plan, run.model.run(plan))
        for row in plan.rows:
            if not row.sequence.remaining:
                assert row.sequence.output_ids == CacheModel.answer(run.jobs[row.sequence.key])
                run.scheduler.remove(row.sequence.key)
    assert preempted > 0
    assert run.scheduler.prefixes.hits > 0


def test_a_next_turn_finds_the_last() -> None:
    """Full blocks of an answer are kept too: what follows it begins with prompt and answer."""
    run = Run(LIMITS)
    saved(run, job(0, max_tokens=6))
    turn = (*PROMPT, *run.answers[0], 90, 91)
    assert saved(run, job(1, turn)) == 15  # 11 + 5 that were computed, in whole blocks


def test_a_job_taken_over_finds_its_own_prefix() -> None:
    """Its first owner's visible tokens are prompt like the rest, and found like the rest."""
    run = Run(LIMITS)
    whole = job(0, max_tokens=6)
    saved(run, whole)
    visible = tuple(CacheModel.answer(whole)[:5])
    assert saved(run, replace(whole, key=1, resume_ids=visible)) == 15


BASE = {"adapter": "a"}
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "another tenant": ({"salt": "one"}, {"salt": "two"}),
    "an adapter, and none": (BASE, {}),
    "none, and an adapter": ({}, BASE),
    "the name reloaded with other content": (BASE, {"adapter": "b"}),
    "another strength": (BASE, BASE | {"adapter_scale": 0.5}),
    "one of a mixture": (BASE, {"adapter": ("a", "b")}),
    "the mixture in another order": ({"adapter": ("a", "b")}, {"adapter": ("b", "a")}),
    "where it begins in the first block": (BASE | {"active_from": 1}, BASE | {"active_from": 2}),
    "before its invocation, and behind": (BASE, BASE | {"active_from": 3}),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_differs_is_not_shared(case: str) -> None:
    """The same tokens with other keys and values: nothing is found, in either order."""
    for first, second in (OTHERS[case], OTHERS[case][::-1]):
        run = Run(LIMITS)
        assert saved(run, job(0, **first)) == 0
        assert saved(run, job(1, **second)) == 0
        assert saved(run, job(2, **first), job(3, **second)) == 18


def test_tokens_before_an_invocation_are_the_backbones() -> None:
    """One system prompt for every adapter: whole blocks before each one's beginning are shared."""
    run = Run(LIMITS)
    assert saved(run, job(0)) == 0
    assert saved(run, job(1, adapter="a", active_from=7)) == 6
    assert saved(run, job(2, adapter="b", active_from=9)) == 9
    assert saved(run, job(3, adapter="a", active_from=7)) == 9
    assert saved(run, job(4)) == 9


def test_told_prompts_take_nothing_and_leave_it_to_others() -> None:
    """Each token's logits are needed, so all are computed; others find what that brought."""
    run = Run(LIMITS)
    told = Sampling(max_tokens=1, prompt_logprobs=0)
    assert saved(run, job(0, sampling=told)) == 0
    assert saved(run, job(1, sampling=told)) == 0
    assert saved(run, job(2)) == 9


@pytest.mark.parametrize(
    ("rope", "first", "second", "found"),
    [
        (RowRope(switch=10), PROMPT, (*PROMPT, 9), 9),
        (RowRope(switch=11), PROMPT, (*PROMPT, 9), 0),
        (RowRope(grows=True, first=12), PROMPT, (*PROMPT, 9), 9),
        (RowRope(grows=True, first=11), PROMPT, (*PROMPT, 9), 0),
        (RowRope(grows=True, first=5), PROMPT, PROMPT, 9),
    ],
)
def test_other_frequencies_are_not_shared(
    rope: RowRope, first: tuple[int, ...], second: tuple[int, ...], found: int
) -> None:
    """On either side of a switch, and where each length has its own, the same tokens differ."""
    run = Run(LIMITS, rope=rope)
    assert saved(run, job(0, first)) == 0
    assert saved(run, job(1, second)) == found


def test_an_answer_that_grows_over_the_switch_overwrites_nothing_shared() -> None:
    """It is computed anew in other blocks; its beginning below the switch is still found."""
    run = Run(LIMITS, rope=RowRope(switch=13))
    saved(run, job(0, max_tokens=6))
    assert saved(run, job(1)) == 9
    assert saved(run, job(2, max_tokens=6)) == 9 + 12  # the second half of its way, too


def test_nothing_is_found_where_it_is_off() -> None:
    """No block gets a name."""
    run = Run(LIMITS, prefix_cache=False)
    assert saved(run, job(0), job(1)) == 0
    assert run.scheduler.blocks.named == 0


def test_the_end_that_was_left_longest_ago_goes_first() -> None:
    """New tokens take blocks that nobody knows, then ends of old sequences, then beginnings."""
    run = Run(replace(LIMITS, blocks=8))
    saved(run, job(0), job(1, (40, *PROMPT)))  # 3 and 4 named blocks
    assert run.scheduler.blocks.named == 7
    saved(run, job(2, tuple(range(60, 69)), max_tokens=1))  # 3 blocks: one is plain
    assert run.scheduler.blocks.reclaimed == 2
    assert saved(run, job(3)) == 3  # of the older one the beginning is left
    assert saved(run, job(4, (40, *PROMPT))) == 3  # as of this one: the last job took its end


@pytest.mark.parametrize(("blocks", "rows"), [(9, [1]), (10, [1, 2])])
def test_blocks_that_are_found_count_when_a_job_is_admitted(blocks: int, rows: list[int]) -> None:
    """Idle ones that it takes are no longer free: beside 4 in use it needs these 3 and 3 more."""
    run = Run(replace(LIMITS, blocks=blocks))
    saved(run, job(0))
    run.submit(job(1, tuple(range(60, 71))))
    run.submit(job(2, (*PROMPT, 7, 8), max_tokens=3))
    plan = run.scheduler.plan()
    assert plan is not None
    assert [row.sequence.key for row in plan.rows] == rows


def test_in_the_middle_of_a_block_nothing_is_taken() -> None:
    """The next block may be known, but the one before it is not whole."""
    blocks = BlockAllocator(8)
    prefixes = PrefixCache(blocks, KV_BLOCK, RowRope())
    first, second = TokenSequence(job(0)), TokenSequence(job(1))
    first.block_ids = blocks.allocate(4)
    first.advance(11)
    prefixes.keep(first, 0, first.computed)
    for computed in (1, 2, 4):
        second.block_ids, second.computed = blocks.allocate(1) * (computed // 3 + 1), computed
        assert prefixes.find(second) == []
    second.block_ids, second.computed = second.block_ids[:1], 3
    assert prefixes.find(second) == first.block_ids[1:3]


def test_names_differ_from_process_to_process() -> None:
    """Nobody can work out beforehand which blocks would have one name."""
    names = []
    for _ in range(2):
        blocks = BlockAllocator(4)
        prefixes = PrefixCache(blocks, KV_BLOCK, RowRope())
        sequence = TokenSequence(job(0))
        sequence.block_ids = blocks.allocate(4)
        sequence.advance(11)
        prefixes.keep(sequence, 0, sequence.computed)
        names.append([blocks.name_of(block) for block in sequence.block_ids])
    assert names[0][3] is names[1][3] is None
    assert not {*names[0][:3]} & {*names[1][:3]}

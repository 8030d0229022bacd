"""How many tokens of prompts a step takes beside decodes: bounds, and who waits for whom."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.worker.engine.block_products import ROW_COUNTS, cut
from aril.worker.engine.prompt_pace import LEAST, SPREAD_STEPS, STEP_ROWS, UNBOUND, prompt_tokens
from aril.worker.engine.scheduler import Scheduler
from aril.worker.engine.step_plan import StepPlan
from tests.support.generation import CountingSlots, request

DECODES = st.integers(1, 600)
PROMPTS = st.integers(1, 64)
WAITING = st.integers(0, 100_000)
STRETCH = st.floats(1.0, UNBOUND)


def cost(tokens: int) -> int:
    """Return what a step of so many tokens costs, in rows' arithmetic."""
    return STEP_ROWS + sum(piece.rows for piece in cut(tokens, ROW_COUNTS))


def scheduler(*, stretch: float = 2.0, rows: int = 16, prefix_cache: bool = False) -> Scheduler:
    """Build one with the limits of a worker."""
    return Scheduler(
        max_rows=rows,
        max_step_tokens=512,
        kv_blocks=4096,
        kv_block=16,
        slots=CountingSlots(2),
        stretch=stretch,
        prefix_cache=prefix_cache,
    )


def run(planner: Scheduler) -> StepPlan:
    """Run one step with token 7 for each row that samples; end what is complete."""
    plan = planner.plan()
    assert plan is not None
    planner.advance(plan, [(7,)] * plan.samples)
    for row in plan.rows:
        if row.sequence.remaining == 0:
            planner.remove(row.sequence.key)
    return plan


@given(decodes=DECODES, prompts=PROMPTS, waiting=WAITING, stretch=STRETCH)
def test_every_step_takes_some_and_more_the_more_there_is(
    decodes: int, prompts: int, waiting: int, stretch: float
) -> None:
    """At least LEAST, and never less for more that waits or for a larger stretch."""
    found = prompt_tokens(decodes, prompts, waiting, stretch)
    assert found >= LEAST
    assert prompt_tokens(decodes, prompts, waiting + 500, stretch) >= found
    assert prompt_tokens(decodes, prompts, waiting, stretch + 1) >= found


@given(decodes=st.integers(1, 200), prompts=st.integers(1, 16), stretch=st.floats(1.0, 8.0))
def test_a_step_lasts_as_long_as_was_asked_and_fills_a_row_count(
    decodes: int, prompts: int, stretch: float
) -> None:
    """As its cost is modelled, while little waits: no longer, and no more than a third shorter."""
    tokens = decodes + prompt_tokens(decodes, prompts, 0, stretch)
    wanted = stretch * (decodes + prompts + STEP_ROWS)
    if tokens == decodes + LEAST or tokens >= ROW_COUNTS[-1]:
        return
    assert tokens in ROW_COUNTS
    assert cost(tokens) <= wanted
    assert tokens + STEP_ROWS > wanted * 2 / 3


@given(decodes=DECODES, waiting=WAITING)
def test_much_that_waits_is_spread_over_so_many_steps(decodes: int, waiting: int) -> None:
    """Whatever the stretch, less what rounding takes away, up to the largest row count."""
    found = decodes + prompt_tokens(decodes, 1, waiting, 1.0)
    assert found >= min(ROW_COUNTS[-1], (decodes + waiting / SPREAD_STEPS) * 2 / 3)


def test_a_prompt_comes_in_beside_decodes_in_row_counts() -> None:
    """Eight rows get a token in every step; with the prompt's part it has 32, then the rest."""
    planner = scheduler()
    for key in range(8):
        planner.add(request(key, 4, max_tokens=100))
    assert run(planner).tokens == 32
    planner.add(request(8, 60))
    plans = [run(planner) for _ in range(4)]
    assert [plan.tokens for plan in plans] == [32, 32, 20, 9]
    assert [plan.samples for plan in plans] == [8, 8, 9, 9]


def test_prompts_alone_go_in_whole_steps() -> None:
    """Where nobody decodes nothing is held back; from the first token on chunks are small."""
    planner = scheduler()
    for key in range(2):
        planner.add(request(key, 1_000))
    assert [run(planner).tokens for _ in range(2)] == [512, 512]
    assert run(planner).tokens < 100


def test_a_stretch_of_1000_is_no_bound() -> None:
    """Beside a decode a chunk is what the limit of a step's tokens leaves."""
    planner = scheduler(stretch=UNBOUND)
    planner.add(request(0, 4, max_tokens=100))
    run(planner)
    planner.add(request(1, 1_000))
    assert run(planner).tokens == 512


def test_what_the_cache_has_of_a_prompt_does_not_count_as_waiting() -> None:
    """Eight follow-ups of 30 tokens behind 2,000 known ones come in as 240 tokens do."""
    planner = scheduler(prefix_cache=True)
    known = tuple(range(2_000))
    planner.add(request(0, known, max_tokens=1))
    while planner.has_work:
        run(planner)
    for key in range(1, 9):
        planner.add(request(key, 4, max_tokens=500))
    run(planner)
    for key in range(9, 17):
        planner.add(request(key, (*known, *range(100 * key, 100 * key + 30))))
    plan = run(planner)
    assert plan.tokens == 8 + prompt_tokens(8, 8, 8 * 30, 2.0) == 48


def test_who_shares_a_beginning_waits_for_no_more_than_its_owner() -> None:
    """Two prompts that share 480 tokens, beside decodes: the second takes the first's blocks."""
    planner = scheduler(prefix_cache=True)
    for key in range(8):
        planner.add(request(key, 4, max_tokens=500))
    run(planner)
    shared = tuple(range(5_000, 5_480))
    for key in (8, 9):
        planner.add(request(key, (*shared, key), max_tokens=2))
    steps = taken = 0
    while any(not sequence.decoding for sequence in planner.running + planner.waiting):
        plan = run(planner)
        steps, taken = steps + 1, taken + plan.tokens - 8
    assert planner.prefixes.tokens == 480
    assert taken <= 480 + 4
    assert steps <= 480 // 24 + 2


@pytest.mark.parametrize("prompts", [1, 4, 15])
@pytest.mark.parametrize("decodes", [1, 8])
def test_a_queue_of_prompts_waits_at_most_about_twice_as_long(decodes: int, prompts: int) -> None:
    """The last first token, in modelled cost, against the same queue in whole chunks."""
    paced, whole = (
        last_first_token(scheduler(stretch=stretch, rows=24), decodes, prompts)
        for stretch in (2.0, UNBOUND)
    )
    assert paced <= 2.6 * whole


def last_first_token(planner: Scheduler, decodes: int, prompts: int) -> int:
    """Return when the last of so many prompts of 512 has its first token, in rows' arithmetic."""
    for key in range(decodes):
        planner.add(request(key, 16, max_tokens=2_000))
    run(planner)
    for key in range(decodes, decodes + prompts):
        planner.add(request(key, 512, max_tokens=64))
    clock, answered = 0, set[int]()
    while len(answered) < decodes + prompts:
        plan = run(planner)
        clock += cost(plan.tokens)
        answered |= {row.sequence.key for row in plan.rows if row.samples}
    return clock


@settings(max_examples=50, deadline=None)
@given(
    stretch=st.sampled_from([1.0, 1.5, 2.0, 4.0]),
    arrivals=st.lists(st.tuples(st.integers(1, 900), st.integers(0, 6)), min_size=1, max_size=24),
)
def test_no_decode_is_left_out_and_no_step_is_over_its_budget(
    stretch: float, arrivals: list[tuple[int, int]]
) -> None:
    """Prompts of any length at any time: whoever decodes has a row in every step."""
    planner = scheduler(stretch=stretch, rows=8)
    todo = list(enumerate(arrivals))
    pause = 0
    while todo or planner.has_work:
        while todo and pause == 0:
            key, (prompt, pause) = todo.pop(0)
            planner.add(request(key, prompt, max_tokens=9))
        pause = max(0, pause - 1)
        if not planner.has_work:
            continue
        decoding = {each.key for each in planner.running if each.decoding}
        waiting = sum(each.pending for each in planner.waiting + planner.running)
        plan = run(planner)
        assert decoding <= {row.sequence.key for row in plan.rows if row.samples}
        taken = plan.tokens - len(decoding)
        if decoding and taken:
            assert taken <= prompt_tokens(len(decoding), 8 - len(decoding), waiting, stretch)

"""Step planning, case by case."""

from dataclasses import replace

import pytest

from aril.worker.engine.scheduler import Scheduler
from aril.worker.engine.step_plan import StepPlan
from tests.support.generation import CacheModel, CountingSlots, request


def make(
    *,
    rows: int = 4,
    tokens: int = 16,
    blocks: int = 32,
    kv_block: int = 4,
    slots: int = 2,
    passes: int = 64,
    pool: CountingSlots | None = None,
) -> Scheduler:
    """Build a scheduler, with a fresh slot pool if none is given."""
    return Scheduler(
        max_rows=rows,
        max_step_tokens=tokens,
        kv_blocks=blocks,
        kv_block=kv_block,
        slots=CountingSlots(slots) if pool is None else pool,
        max_passes=passes,
    )


def step(scheduler: Scheduler) -> StepPlan:
    """Plan and run one step with token 7 for each sampled row, and end what is complete."""
    plan = scheduler.plan()
    assert plan is not None
    scheduler.advance(plan, [[7]] * plan.samples)
    for row in plan.rows:
        if row.sequence.remaining == 0:
            scheduler.remove(row.sequence.key)
    return plan


def shape(plan: StepPlan) -> list[tuple[int, int, int, bool]]:
    """Rows as (key, start, count, samples)."""
    return [(row.sequence.key, row.start, row.count, row.samples) for row in plan.rows]


def test_prompts_share_a_step_and_long_ones_go_in_chunks() -> None:
    """Two prompts prefill at once; the third takes what is left, then goes on beside decodes."""
    scheduler = make()
    for key, prompt in enumerate([3, 5, 20]):
        scheduler.add(request(key, prompt))
    assert shape(step(scheduler)) == [(0, 0, 3, True), (1, 0, 5, True), (2, 0, 8, False)]
    assert shape(step(scheduler)) == [(0, 3, 1, True), (1, 5, 1, True), (2, 8, 12, True)]
    assert shape(step(scheduler)) == [(0, 4, 1, True), (1, 6, 1, True), (2, 20, 1, True)]


def test_decodes_come_before_an_older_prompt() -> None:
    """A long prompt that came first gets only the tokens that the decodes leave."""
    scheduler = make(tokens=4)
    scheduler.add(request(0, 11))
    step(scheduler)
    for key in (1, 2):
        scheduler.add(request(key, 1))
    assert shape(step(scheduler)) == [(0, 4, 4, False)]  # no budget to admit another
    assert shape(step(scheduler)) == [(0, 8, 3, True), (1, 0, 1, True)]
    scheduler.add(request(3, 9))
    assert shape(step(scheduler)) == [
        (0, 11, 1, True),
        (1, 1, 1, True),
        (2, 0, 1, True),
        (3, 0, 1, False),
    ]
    assert shape(step(scheduler))[-1] == (3, 1, 1, False)


def test_rows_of_one_slot_are_adjacent_and_the_backbone_is_last() -> None:
    """However jobs come in, rows are ordered by slot."""
    scheduler = make(rows=8)
    for key, adapter in enumerate([None, "b", "a", None, "b", "a"]):
        scheduler.add(request(key, 1, adapter=adapter))
    plan = step(scheduler)
    assert [row.sequence.digests for row in plan.rows] == [*[("b",)] * 2, *[("a",)] * 2, (), ()]
    assert [row.slots for row in plan.rows] == [(0,), (0,), (1,), (1,), (), ()]


def test_a_row_that_meets_its_adapter_within_comes_first_of_the_adapters() -> None:
    """The tokens of one slot are adjacent, whatever part of each prompt is the backbone's."""
    scheduler = make(rows=8, tokens=64)
    starts = {0: 0, 1: 3, 2: 7, 3: 0}
    for key, start in starts.items():
        job = request(key, 8, adapter="a" if key < 3 else None)
        scheduler.add(replace(job, active_from=start))
    plan = scheduler.plan()
    assert plan is not None
    assert [(row.sequence.key, row.bare, row.slots) for row in plan.rows] == [
        (1, 3, (0,)),
        (2, 7, (0,)),
        (0, 0, (0,)),
        (3, 0, ()),
    ]


def test_a_chunk_before_its_adapter_is_the_backbones() -> None:
    """The slot is held, and no token of the chunk is of it."""
    scheduler = make(tokens=4)
    scheduler.add(replace(request(0, 9, adapter="a"), active_from=6))
    found = []
    for _ in range(4):
        (row,) = step(scheduler).rows
        found.append((row.count, row.bare, row.slots))
    assert found == [(4, 4, ()), (4, 2, (0,)), (1, 0, (0,)), (1, 0, (0,))]


def test_a_full_cache_preempts_the_newest() -> None:
    """The older sequence takes the younger one's blocks; that one starts over later, in order."""
    scheduler = make(blocks=5, kv_block=2)
    model = CacheModel(2)
    jobs = [request(0, 3, max_tokens=7), request(1, 1, max_tokens=5)]
    answers = {}
    sequences = [scheduler.add(job) for job in jobs]
    preempted = 0
    while plan := scheduler.plan():
        preempted += plan.preempted
        scheduler.advance(plan, model.run(plan))
        for sequence in sequences:
            if sequence.remaining == 0 and scheduler.remove(sequence.key):
                answers[sequence.key] = sequence.output_ids
    assert preempted > 0
    assert answers == {job.key: CacheModel.answer(job) for job in jobs}
    assert list(answers) == [0, 1]


def test_the_oldest_that_lacks_memory_is_not_overtaken() -> None:
    """A small job behind a large one waits with it, so the large one gets in."""
    scheduler = make(blocks=8, kv_block=2)
    scheduler.add(request(0, 9, max_tokens=3))
    step(scheduler)
    scheduler.add(request(1, 10, max_tokens=2))
    scheduler.add(request(2, 1, max_tokens=1))
    assert [key for key, *_ in shape(step(scheduler))] == [0]
    step(scheduler)
    assert [key for key, *_ in shape(step(scheduler))] == [1, 2]


def test_a_job_without_a_slot_is_overtaken_but_not_by_its_own_adapter() -> None:
    """With one slot taken by a, jobs of b wait in their order while the backbone's pass."""
    scheduler = make(slots=1)
    scheduler.add(request(0, 1, max_tokens=2, adapter="a"))
    step(scheduler)
    for key, adapter in [(1, "b"), (2, "b"), (3, None)]:
        scheduler.add(request(key, 1, adapter=adapter))
    assert [key for key, *_ in shape(step(scheduler))] == [0, 3]
    assert [key for key, *_ in shape(step(scheduler))] == [1, 2, 3]


def test_a_cancelled_wait_is_forgotten() -> None:
    """What a cancelled job has waited does not count for a later job of its adapter."""
    scheduler = make(rows=8, slots=1, passes=1)
    for key, adapter in [(0, "a"), (1, "b"), (2, "a"), (3, "a")]:
        scheduler.add(request(key, 1, max_tokens=9, adapter=adapter))
    assert [key for key, *_ in shape(step(scheduler))] == [0, 2, 3]
    scheduler.add(request(4, 1, max_tokens=9, adapter="a"))
    assert [key for key, *_ in shape(step(scheduler))] == [0, 2, 3]  # b's turn: a is closed
    scheduler.remove(1)
    scheduler.add(request(5, 1, adapter="b"))
    scheduler.add(request(6, 1, adapter="a"))
    assert [key for key, *_ in shape(step(scheduler))] == [0, 2, 3, 4, 6]


def test_resumed_tokens_are_computed_and_not_sampled_again() -> None:
    """A request with visible tokens prefills them and samples the one that comes next."""
    scheduler = make()
    sequence = scheduler.add(request(0, (1, 2), max_tokens=4, resume=(5, 6)))
    assert shape(step(scheduler)) == [(0, 0, 4, True)]
    assert sequence.output_ids == [5, 6, 7]


def test_what_never_fits_is_a_bug() -> None:
    """A sequence larger than the cache raises ValueError; one that fills it runs."""
    scheduler = make(blocks=4)
    with pytest.raises(ValueError, match="17 tokens, the whole cache holds 16"):
        scheduler.add(request(0, 13, max_tokens=4))
    assert not scheduler.has_work
    scheduler.add(request(0, 12, max_tokens=4))
    assert scheduler.has_work


@pytest.mark.parametrize(
    "job", [request(0, 1), request(1, ()), request(1, 1, max_tokens=2, resume=(1, 2))]
)
def test_requests_that_cannot_run_are_bugs(job: object) -> None:
    """A key in use, an empty prompt and a complete answer raise ValueError."""
    scheduler = make()
    scheduler.add(request(0, 1))
    with pytest.raises(ValueError, match=r"in use|needs a prompt"):
        scheduler.add(job)  # type: ignore[arg-type] # parametrize gives object


def test_the_sampled_ids_must_match_the_plan() -> None:
    """One id too many or too few raises before any sequence has moved."""
    scheduler = make()
    sequence = scheduler.add(request(0, 3))
    plan = scheduler.plan()
    assert plan is not None
    with pytest.raises(ValueError, match="tokens of 1 rows expected, of 2 given"):
        scheduler.advance(plan, [[1], [2]])
    assert sequence.computed == 0


def test_nothing_to_do() -> None:
    """An empty scheduler plans nothing, and unknown keys are told apart."""
    scheduler = make()
    assert scheduler.plan() is None
    assert not scheduler.remove(9)


def test_no_slot_and_nothing_running_is_no_plan() -> None:
    """While the pool has no slot to give, work is left but no step can be planned."""
    scheduler = make(slots=0)
    scheduler.add(request(0, 1, adapter="a"))
    assert scheduler.plan() is None
    assert scheduler.has_work


@pytest.mark.parametrize(("rows", "tokens"), [(0, 4), (5, 4)])
def test_limits_that_cannot_work_are_refused(rows: int, tokens: int) -> None:
    """Every running row must be able to decode in each step."""
    with pytest.raises(ValueError, match="max_rows"):
        make(rows=rows, tokens=tokens)


def test_a_job_that_waits_for_memory_takes_no_slot() -> None:
    """An idle adapter stays where it is until the job that needs its slot can run."""
    pool = CountingSlots(2)
    scheduler = make(blocks=8, pool=pool)
    scheduler.add(request(1, 4, max_tokens=1, adapter="hot"))
    step(scheduler)
    scheduler.add(request(2, 4, max_tokens=20, adapter="running"))
    step(scheduler)
    scheduler.add(request(3, 28, max_tokens=4, adapter="waits"))  # needs every block
    assert [key for key, *_ in shape(step(scheduler))] == [2]
    scheduler.add(request(4, 4, max_tokens=1, adapter="hot"))
    scheduler.remove(3)
    assert [key for key, *_ in shape(step(scheduler))] == [4, 2]
    assert pool.loads == ["hot", "running"]


def test_a_job_whose_adapter_cannot_be_loaded_is_given_up_alone() -> None:
    """It is named with the reason and holds nothing; the jobs behind it start in the same step."""
    pool = CountingSlots(2)
    pool.broken = {"b"}
    scheduler = make(pool=pool)
    for key, adapter in enumerate(["a", "b", "a"]):
        scheduler.add(request(key, 3, adapter=adapter))
    assert [key for key, *_ in shape(step(scheduler))] == [0, 2]
    [(key, reason)] = scheduler.refused
    assert (key, str(reason)) == (1, "b is broken")
    assert not scheduler.waiting

"""Step planning under any mix of jobs, cancellations and memory pressure."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.generation import CacheModel, CountingSlots, request
from worker.engine.mixture import members_of
from worker.engine.scheduler import Scheduler, StepPlan

if TYPE_CHECKING:
    from worker.engine.request import GenerationRequest
    from worker.engine.sequence import TokenSequence

KV_BLOCK = 3
Adapter = str | tuple[str, ...] | None


@dataclass(frozen=True)
class Limits:
    """Limits of one run."""

    rows: int
    tokens: int
    blocks: int
    slots: int
    passes: int


LIMITS = st.builds(
    lambda rows, spare, blocks, slots, passes: Limits(rows, rows + spare, blocks, slots, passes),
    st.integers(1, 5),
    st.integers(0, 12),
    st.integers(7, 24),
    st.integers(1, 3),
    st.integers(0, 4),
)
JOBS = st.lists(
    st.tuples(
        st.integers(1, 9),  # prompt
        st.integers(1, 12),  # max_tokens
        st.sampled_from([None, "a", "b", "c", "d", "e", ("a", "b"), ("e", "a", "c"), ("d", "d")]),
        st.integers(0, 3),  # visible tokens to resume from
    ),
    min_size=1,
    max_size=14,
)


class Run:
    """A scheduler driven by hand, whose every step is checked."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.slots = CountingSlots(limits.slots)
        self.model = CacheModel(KV_BLOCK)
        self.scheduler = Scheduler(
            max_rows=limits.rows,
            max_step_tokens=limits.tokens,
            kv_blocks=limits.blocks,
            kv_block=KV_BLOCK,
            slots=self.slots,
            max_passes=limits.passes,
        )
        self.jobs: dict[int, GenerationRequest] = {}
        self.unfinished: dict[int, TokenSequence] = {}
        self.answers: dict[int, list[int]] = {}
        self.started: list[int] = []  # keys in the order of their first row
        self.steps = 0

    def add(self, prompt: int, max_tokens: int, adapter: Adapter, resume: int = 0) -> int:
        """Submit a job, which may resume the answer that it would have."""
        key = len(self.jobs)
        if isinstance(adapter, tuple):
            adapter = adapter[: self.limits.slots]  # an engine refuses more than it has slots
        job = request(key, prompt, max_tokens=max_tokens, adapter=adapter)
        visible = tuple(CacheModel.answer(job)[: min(resume, max_tokens - 1)])
        job = request(key, prompt, max_tokens=max_tokens, adapter=adapter, resume=visible)
        self.jobs[key] = job
        self.unfinished[key] = self.scheduler.add(job)
        return key

    def cancel(self, key: int) -> None:
        """Drop a job wherever it is."""
        assert self.scheduler.remove(key) == (key in self.unfinished)
        self.unfinished.pop(key, None)
        self.check_state()

    def step(self) -> bool:
        """Run one step and check it; False if there was nothing to do."""
        plan = self.scheduler.plan()
        self.check_state()
        if plan is None:
            return False
        self.steps += 1
        self.check_plan(plan)
        self.scheduler.advance(plan, self.model.run(plan))
        for row in plan.rows:
            key = row.sequence.key
            if key not in self.started:
                self.started.append(key)
            if row.sequence.remaining == 0:
                self.answers[key] = row.sequence.output_ids
                del self.unfinished[key]
                assert self.scheduler.remove(key)
        self.check_state()
        return True

    def check_state(self) -> None:
        """No sequence lost or doubled; blocks and slots held are exactly those in use."""
        running, waiting = self.scheduler.running, self.scheduler.waiting
        keys = [sequence.key for sequence in running + waiting]
        assert sorted(keys) == sorted(self.unfinished)
        assert self.scheduler.has_work == bool(self.unfinished)
        assert len(running) <= self.limits.rows
        for group in (running, waiting):
            assert [one.arrival for one in group] == sorted(one.arrival for one in group)
        blocks = [block for sequence in running for block in sequence.block_ids]
        assert len(blocks) == len(set(blocks)) == self.scheduler.blocks.used
        assert all(not sequence.block_ids and not sequence.computed for sequence in waiting)
        holders = Counter(slot for one in running for slot in one.slots)
        assert self.slots.holders == [holders[slot] for slot in range(self.limits.slots)]
        for sequence in running:
            resident = tuple(self.slots.resident[slot] for slot in sequence.slots)
            assert resident == sequence.digests

    def check_plan(self, plan: StepPlan) -> None:
        """Budgets hold, rows are distinct, grouped by slot, contiguous, and decodes come first."""
        rows = plan.rows
        assert plan.tokens == sum(row.count for row in rows) <= self.limits.tokens
        assert plan.samples == sum(row.samples for row in rows)
        assert 1 <= len(rows) == len({row.sequence.key for row in rows}) <= self.limits.rows
        slots = [row.slots for row in rows]
        assert slots == sorted(slots, key=lambda each: (not each, each))
        for row in rows:
            assert row.start == row.sequence.computed
            assert row.count >= 1
            assert row.samples == (row.start + row.count == row.sequence.length)
            assert row.start + row.count <= len(row.sequence.block_ids) * KV_BLOCK
        planned = {row.sequence.key for row in rows}
        left_out = [one for one in self.scheduler.running if one.key not in planned]
        if any(sequence.decoding for sequence in left_out):
            assert self.scheduler.blocks.free == 0
        assert self.scheduler.running[0].key in planned  # the oldest always moves

    def drain(self) -> None:
        """Run until all is done; the bound holds with room for every recomputation there can be."""
        work = sum(len(job.prompt_ids) + job.sampling.longest for job in self.jobs.values())
        bound = self.steps + work * (1 + len(self.jobs))
        while self.step():
            assert self.steps <= bound
        assert not self.unfinished
        assert self.scheduler.blocks.used == 0
        assert self.slots.holders == [0] * self.limits.slots


@settings(max_examples=300, deadline=None)
@given(limits=LIMITS, jobs=JOBS, gaps=st.lists(st.integers(0, 4), min_size=14, max_size=14))
def test_every_job_finishes_with_the_tokens_of_an_undisturbed_run(
    limits: Limits, jobs: list[tuple[int, int, Adapter, int]], gaps: list[int]
) -> None:
    """Jobs come at any time; preempted or resumed, each ends, and with the same answer."""
    run = Run(limits)
    for (prompt, max_tokens, adapter, resume), gap in zip(jobs, gaps, strict=False):
        run.add(prompt, max_tokens, adapter, resume)
        for _ in range(gap):
            run.step()
    run.drain()
    assert run.answers == {key: CacheModel.answer(job) for key, job in run.jobs.items()}
    names = [adapter for _, _, adapter, _ in jobs]
    for name in set(names):
        order = [key for key in run.started if names[key] == name]
        assert order == sorted(order)


@settings(max_examples=200, deadline=None)
@given(
    limits=LIMITS,
    jobs=JOBS,
    cancels=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 5)), max_size=8),
)
def test_cancelling_frees_everything(
    limits: Limits, jobs: list[tuple[int, int, Adapter, int]], cancels: list[tuple[int, int]]
) -> None:
    """A job cancelled at any point is gone, its blocks and slot free, and the others go on."""
    run = Run(limits)
    for job in jobs:
        run.add(*job)
    for key, steps in cancels:
        for _ in range(steps):
            run.step()
        run.cancel(key)
    run.drain()
    for key, answer in run.answers.items():
        assert answer == CacheModel.answer(run.jobs[key])


@settings(max_examples=100, deadline=None)
@given(
    limits=LIMITS,
    backlog=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=9
    ),
    starved=st.integers(1, 3),
    several=st.integers(1, 3),
)
def test_no_adapter_starves(
    limits: Limits, backlog: list[tuple[int, int, int]], starved: int, several: int
) -> None:
    """Against an endless stream for the resident adapters, jobs of others get in within the bound.

    Every adapter but those that wait always has jobs queued. A wait ends once `max_passes` younger
    jobs have passed and the chosen holder has drained; several waits drain several holders, and one
    for several slots drains all.
    """
    run = Run(limits)
    busy = [f"busy-{slot}" for slot in range(limits.slots)]
    longest = max(prompt + max_tokens for prompt, max_tokens, _ in backlog)
    turn = 0

    def top_up() -> None:
        nonlocal turn
        while len(run.scheduler.waiting) < 2 * limits.rows + starved:
            prompt, max_tokens, pick = backlog[turn % len(backlog)]
            run.add(prompt, max_tokens, busy[(pick + turn) % limits.slots])
            turn += 1

    top_up()
    run.step()
    keys = [
        run.add(1, 1, tuple(f"starved-{number}-{part}" for part in range(several)))
        for number in range(starved)
    ]
    bound = (limits.passes + limits.rows + starved) * longest * (1 + limits.rows) * (1 + starved)
    steps = run.steps + 3 * bound
    while not all(key in run.answers for key in keys):
        top_up()
        assert run.step()
        assert run.steps <= steps
    holder_passes = []
    for name in busy:
        younger = [key for key in run.started if key > keys[0]]
        before = younger[: younger.index(keys[0])] if keys[0] in younger else younger
        adapters = [members_of(run.jobs[key].adapter) for key in before]
        holder_passes.append(sum(adapter.digest == name for (adapter, *_) in adapters))
    assert min(holder_passes) < limits.passes + limits.rows + 1


@given(limits=LIMITS, prompt=st.integers(1, 90), max_tokens=st.integers(1, 90))
def test_a_job_is_refused_or_finishes(limits: Limits, prompt: int, max_tokens: int) -> None:
    """What is not refused by the cache's size can be run to its end even alone in the cache."""
    run = Run(limits)
    try:
        run.add(prompt, max_tokens, None)
    except ValueError:
        assert prompt + max_tokens > limits.blocks * KV_BLOCK
        return
    run.drain()
    assert len(run.answers[0]) == max_tokens

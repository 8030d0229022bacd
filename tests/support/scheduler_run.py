"""A scheduler that is driven by hand, and whose every step is checked."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aril.worker.engine.scheduler import Scheduler
from tests.support.generation import PLAIN, STATES, CacheModel, CountingSlots, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.engine.blocks import BlockAllocator
    from aril.worker.engine.request import GenerationRequest
    from aril.worker.engine.rope_lengths import RowRope
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.speculation import Speculation
    from aril.worker.engine.step_plan import StepPlan

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


class Run:
    """A scheduler driven by hand, whose every step is checked."""

    def __init__(
        self,
        limits: Limits,
        *,
        rope: RowRope = PLAIN,
        vocabulary: int = STATES,
        prefix_cache: bool = True,
        stretch: float = 2.0,
        speculation: Speculation | None = None,
        delays: Sequence[int] = (0,),
    ) -> None:
        self.limits = limits
        self.slots = CountingSlots(limits.slots)
        self.slots.delays = delays
        self.model = CacheModel(KV_BLOCK, rope, vocabulary=vocabulary)
        self.scheduler = Scheduler(
            max_rows=limits.rows,
            max_step_tokens=limits.tokens,
            kv_blocks=limits.blocks,
            kv_block=KV_BLOCK,
            slots=self.slots,
            max_passes=limits.passes,
            stretch=stretch,
            rope=rope,
            prefix_cache=prefix_cache,
            speculation=speculation,
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
        self.submit(request(key, prompt, max_tokens=max_tokens, adapter=adapter, resume=visible))
        return key

    def submit(self, job: GenerationRequest) -> None:
        """Submit a job as it is."""
        self.jobs[job.key] = job
        self.unfinished[job.key] = self.scheduler.add(job)

    def cancel(self, key: int) -> None:
        """Drop a job wherever it is."""
        assert self.scheduler.remove(key) == (key in self.unfinished)
        self.unfinished.pop(key, None)
        self.check_state()

    def step(self) -> bool:
        """Run one step and check it; False if there was nothing to do."""
        self.slots.tick()
        undrafted = self.undrafted()
        plan = self.scheduler.plan()
        self.check_state()
        if plan is None:
            return False
        if undrafted is not None:
            check_drafts(plan, undrafted)
        self.steps += 1
        self.check_plan(plan)
        self.scheduler.advance(plan, self.model.run(plan))
        for row in plan.rows:
            key = row.sequence.key
            if key not in self.started:
                self.started.append(key)
            if row.sequence.remaining == 0:
                assert row.sequence.untold == 0
                self.answers[key] = row.sequence.output_ids
                del self.unfinished[key]
                assert self.scheduler.remove(key)
        self.check_state()
        return True

    def undrafted(self) -> StepPlan | None:
        """Return what a scheduler in the very same state plans that drafts nothing."""
        if self.scheduler.drafting is None:
            return None
        other = deepcopy(self.scheduler)
        other.drafting = None
        return other.plan()

    def check_state(self) -> None:
        """No sequence lost or doubled; blocks and slots held are exactly those in use."""
        running, waiting = self.scheduler.running, self.scheduler.waiting
        keys = [sequence.key for sequence in running + waiting]
        assert sorted(keys) == sorted(self.unfinished)
        assert self.scheduler.has_work == bool(self.unfinished)
        assert len(running) <= self.limits.rows
        for group in (running, waiting):
            assert [one.arrival for one in group] == sorted(one.arrival for one in group)
        check_blocks(
            self.scheduler.blocks,
            [block for one in running for block in one.block_ids] + self.held_beside(),
        )
        for sequence in running:
            assert len(sequence.block_ids) == len(set(sequence.block_ids))
            self.check_computed(sequence)
        assert all(not sequence.block_ids and not sequence.computed for sequence in waiting)
        holders = Counter(slot for one in running for slot in one.slots)
        assert self.slots.holders == [holders[slot] for slot in range(self.limits.slots)]
        for sequence in running:
            resident = tuple(self.slots.resident[slot] for slot in sequence.slots)
            assert resident == sequence.digests

    def held_beside(self) -> list[int]:
        """Return blocks that are held for nobody who runs."""
        return []

    def check_computed(self, sequence: TokenSequence) -> None:
        """Check that what counts as computed is a sequence's own."""
        self.model.check(sequence)

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
            known = row.count - len(row.draft)
            assert row.samples == (row.start + known == row.sequence.length)
            assert not row.tells or row.start + row.tells.start == row.sequence.told
            assert row.start + row.count <= len(row.sequence.block_ids) * KV_BLOCK
            for block in row.sequence.block_ids[row.start // KV_BLOCK :]:  # written, or cleared
                assert self.scheduler.blocks.holders(block) == 1
                assert self.scheduler.blocks.name_of(block) is None
        planned = {row.sequence.key for row in rows}
        # Rows whose adapter is on its way wait for it, and nobody else does.
        ready = [one for one in self.scheduler.running if self.slots.arrived(one.slots)]
        assert planned <= {one.key for one in ready}
        left_out = [one for one in ready if one.key not in planned]
        # One that found all but its last token may be left out for want of budget, too; drafts take
        # neither from it: they end in blocks that their rows hold then, and come last.
        if any(one.decoding for one in left_out if one.index):
            known = plan.tokens - sum(len(row.draft) for row in rows)
            assert self.scheduler.blocks.free == 0 or known == self.limits.tokens
        assert ready[0].key in planned  # the oldest always moves

    def drain(self) -> None:
        """Run until all is done; the bound holds with room for every recomputation there can be."""
        work = sum(len(job.prompt_ids) + job.sampling.longest for job in self.jobs.values())
        bound = self.steps + work * (1 + len(self.jobs))
        while self.step():
            assert self.steps <= bound
        assert not self.unfinished
        assert self.scheduler.blocks.used == 0
        assert self.slots.holders == [0] * self.limits.slots


def check_drafts(plan: StepPlan, undrafted: StepPlan) -> None:
    """Drafts are added to the very plan that is made without; they end before the answer does."""
    added = [
        (row.sequence.key, row.start, row.count - len(row.draft), row.samples, row.tells)
        for row in plan.rows
    ]
    assert added == [
        (row.sequence.key, row.start, row.count, row.samples, row.tells) for row in undrafted.rows
    ]
    assert (plan.samples, plan.preempted) == (undrafted.samples, undrafted.preempted)
    assert plan.tokens - undrafted.tokens == sum(len(row.draft) for row in plan.rows)
    for row in plan.rows:
        if row.draft:
            assert row.samples
            assert row.count - len(row.draft) == 1
            assert len(row.draft) < row.sequence.remaining
            assert not row.tells


def check_blocks(allocator: BlockAllocator, held: list[int]) -> None:
    """Each block is held as often as `held` has it, or free, with a name or without: never two."""
    holders = Counter(held)
    assert allocator._holders == [holders[block] for block in range(allocator.blocks)]
    states = [*allocator._free, *allocator._idle, *holders]
    assert sorted(states) == list(range(allocator.blocks))
    assert allocator.used == len(holders)
    assert allocator.free == allocator.blocks - len(holders)
    assert set(allocator._idle) <= allocator._names.keys()
    assert not allocator._names.keys() & set(allocator._free)
    assert {name: block for block, name in allocator._names.items()} == allocator._named
    assert allocator.named == len(allocator._names)

"""A scheduler whose steps are launched ahead of the tokens that they go on from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from aril.worker.engine.feedback import NO_FEEDBACK, Feedback
from aril.worker.engine.filled_blocks import FilledBlocks
from aril.worker.engine.run_ahead import RunAhead
from aril.worker.engine.sampler import Sampled
from aril.worker.engine.sequence import UNREAD
from aril.worker.engine.step_sampling import Launched, StepSampler
from tests.support.scheduler_run import KV_BLOCK, Run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.step_plan import StepPlan
    from tests.support.scheduler_run import Limits


class AheadRun(Run, StepSampler):
    """Such a scheduler; the model runs when a step is launched, as a device does in its order.

    `ends` are tokens that end an answer, which is known only when they are read.
    """

    def __init__(self, limits: Limits, ends: Iterable[int] = (), **more: Any) -> None:
        Run.__init__(self, limits, **more)
        StepSampler.__init__(self, forward=self._no_forward, filled=FilledBlocks())
        self.ends = frozenset(ends)
        self.ahead = RunAhead(self.scheduler, self)
        self.order: list[tuple[str, int]] = []  # of launches and reads, by the step's number
        self.written: set[int] = set()  # blocks that the step in flight writes
        self._numbers: dict[int, int] = {}  # of plans
        self._give_blocks = self.scheduler.blocks.allocate
        self.scheduler.blocks.allocate = self._allocate  # type: ignore[method-assign]

    def launch(self, plan: StepPlan, feedback: Feedback = NO_FEEDBACK) -> Launched:
        """Run the model at once; what it samples is told later."""
        self.steps += 1
        self._numbers[id(plan)] = self.steps
        self.order.append(("launch", self.steps))
        rows = plan.rows
        assert plan.tokens == sum(row.count for row in rows) <= self.limits.tokens
        assert 1 <= len(rows) == len({row.sequence for row in rows}) <= self.limits.rows
        ids = torch.tensor([token for row in rows for token in row.ids])
        feedback.fill_(ids, *map(torch.from_numpy, feedback[:2]))
        assert UNREAD not in ids
        assert all(row.start == row.sequence.computed for row in rows)
        assert all(row.sequence.remaining for row in rows)
        self.written = {
            block for row in rows for block in row.sequence.block_ids[row.start // KV_BLOCK :]
        }
        for block in self.written:
            assert self.scheduler.blocks.holders(block) == 1
            assert self.scheduler.blocks.name_of(block) is None
        tokens = [each.tolist() for each in ids.split([row.count for row in rows])]
        came = [each[0] for each in self.model.run(plan, tokens)]
        self.started += [row.sequence.key for row in rows if row.sequence.key not in self.started]
        return Launched(
            plan, [], torch.tensor(came, dtype=torch.int64), lambda: self._told(plan, came)
        )

    def step(self) -> bool:
        """Launch a step, read the one before, and check what is held."""
        self.slots.tick()
        ended: list[int] = []

        def take(sequence: TokenSequence, token: int, _logprobs: object) -> bool:
            key = sequence.key
            assert key in self.unfinished
            own = self.answers.setdefault(key, [*self.jobs[key].resume_ids])
            own.append(token)
            if token in self.ends or len(own) == sequence.sampling.longest:
                ended.append(key)
            return key not in ended

        plan = self.ahead(take)
        for key in ended:
            del self.unfinished[key]
            assert self.scheduler.remove(key)
        self.check_state()
        return plan is not None

    def held_beside(self) -> list[int]:
        """Return the blocks of those who are gone, while a step may write them."""
        late = [block for blocks in self.scheduler.in_flight._late for block in blocks]
        assert self.scheduler.in_flight.plan is not None or not late
        return late

    def check_computed(self, sequence: TokenSequence) -> None:
        """Check all but those that are to be computed anew once their step is read.

        And that names are those of the tokens that came.
        """
        if sequence.length - 1 == self.scheduler.rope.switch:
            return
        super().check_computed(sequence)
        named, sequence.block_names = sequence.block_names, []
        if named:
            self.scheduler.prefixes._name(sequence, len(named) - 1)
        assert sequence.block_names == named

    def _allocate(self, count: int) -> list[int]:
        ids = self._give_blocks(count)
        if self.scheduler.in_flight.plan is not None:
            assert not self.written.intersection(ids)
        return ids

    def _told(self, plan: StepPlan, came: list[int]) -> Sampled:
        self.order.append(("read", self._numbers[id(plan)]))
        return Sampled(came, [None] * len(came))

    @staticmethod
    def _no_forward(*_: object) -> Any:
        raise AssertionError

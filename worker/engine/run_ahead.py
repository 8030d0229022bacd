"""Step n+1 is planned, packed and launched while the device runs step n.

Only then are n's tokens read: what n has sampled goes into n+1 on the device (feedback.py). So the
device finds its next step waiting for it, and the host plans, packs and writes text meanwhile. A
row that turns out to have ended in n runs once too often, and nobody is told of it.

Nothing is launched ahead of a step whose tokens the host must know to go on: the one behind it is
planned when these have come, as in the simple loop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.engine.feedback import NO_FEEDBACK, Feedback
from aril.worker.engine.penalties import has_penalties

if TYPE_CHECKING:
    from aril.schemas import TokenLogprobs
    from aril.worker.engine.scheduler import Scheduler
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.step_plan import Row, StepPlan
    from aril.worker.engine.step_sampling import Launched, StepSampler, Take


class RunAhead:
    """Runs steps without drafts, at most one ahead of the one whose tokens are read.

    Between two calls one step is in flight, or none. Requests may come and go then: what is in
    flight of one that is gone is dropped.
    """

    def __init__(self, scheduler: Scheduler, sampler: StepSampler) -> None:
        self._scheduler = scheduler
        self._sampler = sampler
        self._flight: Launched | None = None

    def __call__(self, take: Take) -> StepPlan | None:
        """Launch the next step, then give `take` the tokens of the one before.

        Returns what that was, None if there was none.
        """
        now = self._flight or self._launch(None)
        if now is None:
            return None
        self._flight = self._launch(now) if self._goes_on(now) else None

        def take_if_held(
            sequence: TokenSequence, token: int, logprobs: TokenLogprobs | None
        ) -> bool:
            return self._scheduler.holds(sequence) and take(sequence, token, logprobs)

        self._scheduler.settle(now.plan, self._sampler.read(now, take_if_held))
        return now.plan

    def _launch(self, before: Launched | None) -> Launched | None:
        """Launch a step, behind another one or none; None where nothing can run."""
        plan = self._scheduler.plan()
        if plan is None:
            return None
        feedback = NO_FEEDBACK
        if before is not None and before.ids is not None:
            feedback = Feedback.of(plan, before.plan, before.ids)
        launched = self._sampler.launch(plan, feedback)  # goes by how many tokens there are now
        self._scheduler.in_flight.launch(plan)
        return launched

    def _goes_on(self, step: Launched) -> bool:
        """Whether a step can be built behind this one before its tokens are read."""
        return step.ids is not None and not any(map(self._needs_host, step.plan.rows))

    def _needs_host(self, row: Row) -> bool:
        sequence = row.sequence
        if sequence.prompt_rows is not None:  # which are read with the first token
            return True
        return row.samples and (
            sequence.matcher is not None
            or has_penalties(sequence.sampling)
            or row.stop == self._scheduler.rope.switch  # all is computed anew then
        )

"""One step after the other: planned, run, read, and only then the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aril.worker.engine.kv_cache import KVCache
    from aril.worker.engine.scheduler import Scheduler
    from aril.worker.engine.step_plan import StepPlan
    from aril.worker.engine.step_sampling import StepSampler, Take


class SimpleLoop:
    """Runs steps, drafts among them."""

    def __init__(self, scheduler: Scheduler, sampler: StepSampler, cache: KVCache) -> None:
        self._scheduler = scheduler
        self._sampler = sampler
        self._cache = cache

    def __call__(self, take: Take) -> StepPlan | None:
        """Run a step, whose tokens `take` is given; returns what it was, None if there was none."""
        plan = self._scheduler.plan()
        if plan is not None:
            ids = self._sampler(plan, take)
            self._clear_rejected(plan, ids)
            self._scheduler.advance(plan, ids)
        return plan

    def _clear_rejected(self, plan: StepPlan, ids: list[list[int]]) -> None:
        """Clear what drafts left in the cache that does not stand: see KVCache."""
        size = self._cache.block_size
        samples = (row for row in plan.rows if row.samples)
        places = [
            row.sequence.block_ids[at // size] * size + at % size
            for row, came in zip(samples, ids, strict=True)
            for at in range(row.start + row.stands(len(came)), row.stop)
        ]
        if places:
            self._cache.clear_places(places)

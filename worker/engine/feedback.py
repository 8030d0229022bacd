"""Tokens that go from one step into the next on the device, before the host has read them."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.engine.step_plan import StepPlan


class Feedback(NamedTuple):
    """Which of a step's tokens the step before has sampled.

    Arrays on the host, int64 [k], one for each row whose last token is UNREAD (sequence.py).
    """

    places: Any  # in the step's tokens, rows one after the other
    sources: Any  # in `sampled`
    sampled: Tensor | None  # int64 [rows that sampled], on the device; None where k = 0

    @classmethod
    def of(cls, plan: StepPlan, before: StepPlan, sampled: Tensor) -> Self:
        """Feed what `before` has sampled, one a row that samples, to those rows of `plan`."""
        sampling = [row.sequence for row in before.rows if row.samples]
        source = {sequence: place for place, sequence in enumerate(sampling)}
        ends = accumulate(row.count for row in plan.rows)
        fed = [
            (end - 1, source[row.sequence])
            for row, end in zip(plan.rows, ends, strict=True)
            if row.stop > row.sequence.known
        ]
        places, sources = np.array(fed, np.int64).reshape(-1, 2).T.copy()
        return cls(places, sources, sampled)

    def fill_(self, input_ids: Tensor, places: Tensor, sources: Tensor) -> None:
        """Put them into a step's ids, int64 [T]; its arrays have come to the device as tensors."""
        if self.sampled is not None and len(places):
            input_ids.index_copy_(0, places, self.sampled.index_select(0, sources))


NO_FEEDBACK: Final = Feedback(np.zeros(0, np.int64), np.zeros(0, np.int64), None)

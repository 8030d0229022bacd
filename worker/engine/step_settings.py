"""What a step's rows ask of the sampler, packed for one copy to where the logits are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np

from aril.worker.engine.inversion import Draws
from aril.worker.engine.noise import uniform
from aril.worker.engine.one_copy import one_copy
from aril.worker.engine.penalties import NO_SHIFTS, Penalties, ShiftedRow, Shifts, shifts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from aril.schemas import Sampling
    from aril.worker.constraints.matcher import Matcher
    from aril.worker.engine.token_masks import TokenMasks

_GREEDY_BELOW: Final = 1e-5  # temperatures under it are greedy, as in vLLM


class SamplingRow(ShiftedRow, Protocol):
    """What sampling needs to know of a sequence."""

    seed: int

    @property
    def matcher(self) -> Matcher | None:
        """Where the answer is in its constraint, if it has one."""


class StepSettings(NamedTuple):
    """Rows by what they ask, int64 [k], and how; as arrays, then as tensors on a device."""

    greedy: Any
    drawn: Any
    asked: Any  # for log probabilities
    constrained: Any
    bits: Any  # of the constrained ones, [k, words]
    draws: Draws  # of the drawn ones
    shifts: Shifts
    penalties: Penalties

    @classmethod
    def of(cls, rows: Sequence[SamplingRow], vocab: int, masks: TokenMasks | None) -> StepSettings:
        """Gather them on the host; raises what one row's matcher, or its history, raises."""
        greedy = [is_greedy(row.sampling) for row in rows]
        drawn = [row for row, sure in zip(rows, greedy, strict=True) if not sure]
        constrained = [row for row in rows if row.matcher is not None]
        if constrained and masks is None:
            raise ValueError("constrained rows need masks")
        bits = np.zeros((0, 0), np.int64)
        if constrained and masks is not None:
            bits = masks.bits(constrained)
        each = [shifts_of(row, place * vocab) for place, row in enumerate(rows)]
        some = [shifts for shifts in each if shifts] or [NO_SHIFTS]
        ways = [row.sampling for row in rows]
        return cls(
            greedy=np.flatnonzero(greedy),
            drawn=np.flatnonzero(~np.array(greedy, bool)),
            asked=np.flatnonzero([way.logprobs is not None for way in ways]),
            constrained=np.flatnonzero([row.matcher is not None for row in rows]),
            bits=bits,
            draws=draws_of(drawn, vocab),
            shifts=Shifts(*map(np.concatenate, zip(*some, strict=True))),
            penalties=Penalties(
                np.array([way.repetition_penalty for way in ways], np.float64),
                np.array([way.frequency_penalty for way in ways], np.float64),
                np.array([way.presence_penalty for way in ways], np.float64),
            ),
        )

    def on(self, device: torch.device) -> StepSettings:
        """Return them as tensors on a device, by one copy."""
        simple = (self.greedy, self.drawn, self.asked, self.constrained, self.bits.ravel())
        there = iter(one_copy([*simple, *self.draws, *self.shifts, *self.penalties], device))
        greedy, drawn, asked, constrained, bits = (next(there) for _ in simple)
        return StepSettings(
            greedy,
            drawn,
            asked,
            constrained,
            bits.view(self.bits.shape),
            Draws(*(next(there) for _ in Draws._fields)),
            Shifts(*(next(there) for _ in Shifts._fields)),
            Penalties(*(next(there) for _ in Penalties._fields)),
        )


def is_greedy(sampling: Sampling) -> bool:
    """Whether the largest logit is taken."""
    return sampling.temperature < _GREEDY_BELOW or sampling.top_k == 1


def draws_of(rows: Sequence[SamplingRow], vocab: int) -> Draws:
    """How rows are drawn, as arrays."""
    ways = [row.sampling for row in rows]
    return Draws(
        np.array([way.temperature for way in ways], np.float64),
        np.array([way.min_p for way in ways], np.float64),
        np.array([min(way.top_k or vocab, vocab) for way in ways], np.int64),
        np.array([way.top_p for way in ways], np.float64),
        np.array([uniform(row.seed, row.index) for row in rows], np.float64),
    )

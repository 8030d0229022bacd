"""Repetition, presence and frequency penalties, with vLLM's semantics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from schemas import Sampling

_LARGEST: Final = torch.finfo(torch.float32).max


def has_penalties(sampling: Sampling) -> bool:
    """Whether any penalty is switched on."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def penalise_(
    logits: Tensor, sampling: Sampling, prompt_ids: Sequence[int], output_ids: Sequence[int]
) -> None:
    """Apply the penalties to one row of logits [vocab], in place and in this order.

    Repetition, for each token of prompt or output: positive logits are divided by it, others
    multiplied. Frequency: minus the penalty times the token's count in the output. Presence: minus
    the penalty for each token of the output. What was finite stays finite: a logit that would pass
    float32's range stops at its end.
    """
    if sampling.repetition_penalty != 1:
        seen = _to(np.array([*prompt_ids, *output_ids]), logits)
        row = logits[seen]  # a token that was seen twice is written twice, the same
        penalty = sampling.repetition_penalty
        logits[seen] = _bounded(torch.where(row > 0, row / penalty, row * penalty), row)
    if output_ids and (sampling.frequency_penalty != 0 or sampling.presence_penalty != 0):
        written, counts = np.unique(output_ids, return_counts=True)
        ids = _to(written, logits)
        row = logits[ids]
        penalised = row - sampling.frequency_penalty * _to(counts, logits)
        logits[ids] = _bounded(penalised - sampling.presence_penalty, row)


def _bounded(penalised: Tensor, before: Tensor) -> Tensor:
    return penalised.clamp(-_LARGEST, _LARGEST).where(before.isfinite(), before)


def _to(array: np.ndarray[tuple[int], np.dtype[np.int64]], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)

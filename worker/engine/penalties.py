"""Repetition, presence and frequency penalties, with vLLM's semantics."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from schemas import Sampling


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
    the penalty for each token of the output.
    """
    if sampling.repetition_penalty != 1:
        seen = _to(np.array([*prompt_ids, *output_ids]), logits)
        row = logits[seen]  # a token that was seen twice is written twice, the same
        penalty = sampling.repetition_penalty
        logits[seen] = torch.where(row > 0, row / penalty, row * penalty)
    if output_ids and (sampling.frequency_penalty != 0 or sampling.presence_penalty != 0):
        written, counts = np.unique(output_ids, return_counts=True)
        ids = _to(written, logits)
        row = logits[ids] - sampling.frequency_penalty * _to(counts, logits)
        logits[ids] = row - sampling.presence_penalty


def _to(array: np.ndarray[tuple[int], np.dtype[np.int64]], like: Tensor) -> Tensor:
    return torch.from_numpy(array).to(like.device)

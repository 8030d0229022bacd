"""Biases, and repetition, presence and frequency penalties, with vLLM's semantics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

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


def bias_(logits: Tensor, sampling: Sampling, output: int, end_ids: Collection[int]) -> None:
    """Shift one row of logits [vocab], in place, before all penalties, as vLLM does.

    First `logit_bias`; then, while the answer has fewer than `min_tokens` tokens, what would end it
    gets the lowest number there is, so that it comes only where nothing else can.
    """
    if sampling.logit_bias:
        ids = _to(np.array([*map(int, sampling.logit_bias)]), logits)
        biases = torch.tensor([*sampling.logit_bias.values()], device=logits.device)
        row = logits[ids]
        logits[ids] = _bounded(row + biases, row)
    if output < sampling.min_tokens and end_ids:
        ids = _to(np.array(sorted(end_ids)), logits)
        logits[ids] = logits[ids].clamp(max=-_LARGEST)


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

"""Biases, and repetition, presence and frequency penalties, with vLLM's semantics.

The host lists which logits of a batch are shifted (`shifts_of`, a row at a time), the device shifts
all of them at once (`shift_`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from aril.schemas import Sampling

_LARGEST: Final = torch.finfo(torch.float32).max


class ShiftedRow(Protocol):
    """What it needs to know of a sequence."""

    prompt_ids: tuple[int, ...]
    output_ids: list[int]
    sampling: Sampling

    @property
    def end_ids(self) -> frozenset[int]:
        """What ends the answer, and may not before `min_tokens`."""

    @property
    def index(self) -> int:
        """Index in the answer of the token that is sampled."""


class Shifts(NamedTuple):
    """Which logits are shifted; as arrays on the host, then as tensors where the logits are.

    Places count through [n, vocab]; each of the five [k] is as long as it has to be.
    """

    biased: Any  # places, each once
    biases: Any  # float64
    ends: Any  # places
    seen: Any  # places of tokens of prompt and output, as often as they stand there
    written: Any  # places of the output's tokens, each once
    counts: Any  # how often they stand there

    def __bool__(self) -> bool:
        """Whether there is any."""
        return any(len(each) for each in self)


class Penalties(NamedTuple):
    """Of each row, float64 [n]."""

    repetition: Any
    frequency: Any
    presence: Any


def has_penalties(sampling: Sampling) -> bool:
    """Whether any penalty is switched on."""
    return (
        sampling.repetition_penalty != 1
        or sampling.presence_penalty != 0
        or sampling.frequency_penalty != 0
    )


def shifts_of(row: ShiftedRow, start: int) -> Shifts:
    """List what is shifted of the row whose logits begin at place `start`; arrays of 64 bits."""
    sampling = row.sampling
    early = row.index < sampling.min_tokens
    if not (sampling.logit_bias or early or has_penalties(sampling)):
        return NO_SHIFTS
    biases = sampling.logit_bias
    seen: Sequence[int] = ()
    if sampling.repetition_penalty != 1:
        seen = (*row.prompt_ids, *row.output_ids)
    written, counts = _ids(()), _ids(())
    if row.output_ids and (sampling.frequency_penalty != 0 or sampling.presence_penalty != 0):
        written, counts = np.unique(_ids(row.output_ids), return_counts=True)
    return Shifts(
        biased=_ids([*map(int, biases)]) + start,
        biases=np.array([*biases.values()], np.float64),
        ends=_ids(sorted(row.end_ids) if early else ()) + start,
        seen=_ids(seen) + start,
        written=written + start,
        counts=counts.astype(np.int64),
    )


def shift_(logits: Tensor, shifts: Shifts, penalties: Penalties) -> None:
    """Shift logits [n, vocab], contiguous, in place and in this order, as vLLM does.

    Biases. Then what would end an answer that has fewer than `min_tokens` tokens gets the lowest
    number there is, so that it comes only where nothing else can. Repetition, for each token of
    prompt or output: positive logits are divided by it, others multiplied. Frequency: minus the
    penalty times the token's count in the output. Presence: minus the penalty for each token of the
    output. What was finite stays finite: a logit that would pass float32's range stops at its end.
    """
    flat, vocab = logits.view(-1), logits.shape[1]
    if len(shifts.biased):
        before = flat.index_select(0, shifts.biased)
        _put(flat, shifts.biased, before + shifts.biases.float(), before)
    if len(shifts.ends):
        before = flat.index_select(0, shifts.ends)
        flat.index_copy_(0, shifts.ends, before.clamp(max=-_LARGEST))
    if len(shifts.seen):  # a token that was seen twice is written twice, the same
        before = flat.index_select(0, shifts.seen)
        penalty = _of_places(penalties.repetition, shifts.seen, vocab)
        shifted = torch.where(before > 0, before / penalty, before * penalty)
        _put(flat, shifts.seen, shifted, before)
    if len(shifts.written):
        before = flat.index_select(0, shifts.written)
        frequency = _of_places(penalties.frequency, shifts.written, vocab)
        presence = _of_places(penalties.presence, shifts.written, vocab)
        _put(flat, shifts.written, before - frequency * shifts.counts.float() - presence, before)


def _of_places(rows: Tensor, places: Tensor, vocab: int) -> Tensor:
    """Return of each place what belongs to its row, as float32."""
    return rows.float().index_select(0, places.div(vocab, rounding_mode="floor"))


def _put(flat: Tensor, places: Tensor, shifted: Tensor, before: Tensor) -> None:
    bounded = shifted.clamp(-_LARGEST, _LARGEST).where(before.isfinite(), before)
    flat.index_copy_(0, places, bounded)


def _ids(ids: Sequence[int]) -> NDArray[np.int64]:
    return np.array(ids, np.int64)


NO_SHIFTS: Final = Shifts(_ids(()), np.zeros(0), _ids(()), _ids(()), _ids(()), _ids(()))

"""Drafts: tokens that are guessed to come next, which a step checks beside the one that is known.

A guess changes no answer: each place of a draft is sampled as it would have been without one
(step_sampling.py), and what was not guessed right is dropped. So only the price matters: a draft is
made where the row's earlier guesses say that it brings more tokens than the time is worth.
"""

from __future__ import annotations

from operator import eq
from typing import TYPE_CHECKING, Final, Protocol

from worker.engine.block_products import WEIGHT_ROWS
from worker.engine.guessing import Guessing
from worker.engine.ngrams import NgramIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.engine.sequence import TokenSequence

# A token more in a step costs as its products do, and half of that again: attention, logits, and
# guesses that come out otherwise than those before. SmolLM2-135M in bfloat16, context 200, one
# thread of an AMD EPYC, 29 November 2026: 0.03, 0.20, 0.31 and 0.44 tokens at 1, 4, 8 and 16 rows
# by CPU time, where this comes to 0.06, 0.21, 0.38 and 0.60 (by hand; benchmarks/speculation.py).
MARGIN: Final = 1.5

MOST_A_STEP: Final = 64
"""Tokens that a step drafts: each has logits of the whole vocabulary."""


class Proposer(Protocol):
    """Guesses the tokens that come next in a sequence."""

    def propose(self, sequence: TokenSequence, most: int) -> Sequence[int]:
        """Return up to `most` tokens of the vocabulary, the next one first."""


class NgramProposer:
    """Guesses that what followed the last tokens before will follow them again."""

    def propose(self, sequence: TokenSequence, most: int) -> Sequence[int]:
        """Look the last tokens up in the sequence's own prompt and answer."""
        index = sequence.ngrams
        if index is None:
            index = sequence.ngrams = NgramIndex()
        index.extend(sequence.tokens(len(index), sequence.length - len(index)))
        return index.following(most)


class Speculation:
    """Drafts of up to `most` tokens for the rows of a step; counts since the start."""

    def __init__(self, most: int, proposer: Proposer | None = None) -> None:
        self.most = most
        self.drafted = 0  # tokens
        self.accepted = 0  # of these, tokens that came
        self._proposer = NgramProposer() if proposer is None else proposer

    def price(self, decodes: int) -> float:
        """Return what a drafted token costs, in tokens that the step brings in the same time.

        A step reads the weights, which costs as WEIGHT_ROWS rows do, and computes its rows.
        """
        return MARGIN * decodes / (decodes + WEIGHT_ROWS)

    def draft(self, sequence: TokenSequence, price: float, room: int) -> tuple[int, ...]:
        """Return the draft of a sequence that decodes, of at most `room` tokens; () for none."""
        guessing = sequence.guessing
        if guessing is None:
            guessing = sequence.guessing = Guessing()
        if guessing.stopped:
            return ()
        guessing.guess = self._proposer.propose(sequence, self.most)
        return tuple(guessing.guess[: guessing.pays(price, min(room, len(guessing.guess)))])

    def note(self, sequence: TokenSequence, draft: Sequence[int], ids: Sequence[int]) -> None:
        """Take notice of what came; of nothing, where the draft has spoilt its own row."""
        self.drafted += len(draft)
        self.accepted += sum(map(eq, draft, ids))
        if sequence.guessing is not None:
            sequence.guessing.note(ids)
            sequence.guessing.stopped |= not ids

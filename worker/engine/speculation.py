"""Drafts: tokens that are guessed to come next, which a step checks beside the one that is known.

A guess changes no answer: each place of a draft is sampled as it would have been without one
(step_sampling.py), and what was not guessed right is dropped. So only the price matters: drafts are
made where earlier guesses say that they bring more tokens than the time is worth.
"""

from __future__ import annotations

from itertools import islice
from operator import eq
from typing import TYPE_CHECKING, Final, Protocol

from aril.worker.engine.answer_kinds import AnswerKinds
from aril.worker.engine.draft_lengths import draft_lengths
from aril.worker.engine.guessing import Guess, Guessing
from aril.worker.engine.ngrams import LONGEST, NgramIndex
from aril.worker.engine.step_settings import is_greedy
from aril.worker.engine.votes import likeliest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from aril.worker.engine.sequence import TokenSequence

MOST_A_STEP: Final = 64
"""Tokens that a step drafts: each has logits of the whole vocabulary. Where more rows than that
decode, one row more costs about as much as it brings, and nothing is guessed."""


class Proposer(Protocol):
    """Guesses the tokens that come next in a sequence."""

    def propose(self, sequence: TokenSequence, earlier: NgramIndex) -> Iterable[tuple[int, int]]:
        """Guess tokens of the vocabulary with their evidence (votes.py), the next one first.

        `earlier` has answers of the sequence's kind. As many are taken as are of use.
        """


class NgramProposer:
    """Guesses that what followed the last tokens before will follow them again."""

    def propose(self, sequence: TokenSequence, earlier: NgramIndex) -> Iterator[tuple[int, int]]:
        """Look the last tokens up in the sequence's own prompt and answer, and in earlier ones."""
        index = sequence.ngrams
        if index is None:
            index = sequence.ngrams = NgramIndex()
        index.extend(sequence.tokens(len(index), sequence.length - len(index)))
        tail = index.latest(LONGEST)
        while found := likeliest(tail, index, earlier):
            yield found
            tail = [*tail[1 - LONGEST :], found[0]]


class Speculation:
    """Drafts of up to `most` tokens for the rows of a step; counts since the start."""

    def __init__(self, most: int, proposer: Proposer | None = None) -> None:
        self.most = most
        self.drafted = 0  # tokens
        self.accepted = 0  # of these, tokens that came
        self._kinds = AnswerKinds()
        self._proposer = NgramProposer() if proposer is None else proposer

    def guess(self, sequence: TokenSequence, least: float) -> Guess:
        """Guess what comes in a sequence that decodes; nothing while it rests.

        The guess goes on behind tokens that come with a chance of `least`, and is one token long in
        any case, if there is one: it is compared with what comes, drafted or not.
        """
        guessing = sequence.guessing
        if guessing is None:
            kind = sequence.salt, sequence.digests, sequence.scales, is_greedy(sequence.sampling)
            guessing = sequence.guessing = Guessing(self._kinds.of(kind))
        guess = guessing.guess = Guess()
        if guessing.rests():
            return guess
        chance = 1.0
        proposed = self._proposer.propose(sequence, guessing.kind.index)
        for token, evidence in islice(proposed, self.most):
            chance *= guessing.rate(evidence)
            guess.add(token, evidence, chance)
            if chance < least:
                break
        guessing.judge(poor=not guess.chances or guess.chances[0] < least)
        return guess

    def choose(
        self,
        chances: Sequence[Sequence[float]],
        prices: Sequence[float],
        cost: Callable[[int], float],
        useful: int,
        most: int,
    ) -> list[int]:
        """Return how many guesses of each row to draft: see `draft_lengths`."""
        return draft_lengths(chances, prices, cost, useful, most)

    def note(self, sequence: TokenSequence, draft: Sequence[int], ids: Sequence[int]) -> None:
        """Take notice of what came; of nothing, where the draft has spoilt its own row."""
        self.drafted += len(draft)
        self.accepted += sum(map(eq, draft, ids))
        if sequence.guessing is not None:
            sequence.guessing.note(ids)
            sequence.guessing.stopped |= not ids

    def ended(self, sequence: TokenSequence) -> None:
        """Keep an answer for those of its kind, with the prompt's last tokens before it."""
        if sequence.guessing is not None:
            ids = sequence.output_ids
            sequence.guessing.kind.add([*sequence.prompt_ids[-LONGEST:], *ids])

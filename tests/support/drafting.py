"""Drafts whenever there is room, by proposers that know the answer, or are wrong on purpose."""

from __future__ import annotations

from itertools import chain, islice, repeat
from random import Random
from typing import TYPE_CHECKING, Final, Literal, get_args

from aril.worker.engine.guessing import Guess
from aril.worker.engine.speculation import NgramProposer, Speculation
from aril.worker.engine.votes import FIRST_RATES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from aril.worker.engine.ngrams import NgramIndex
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.speculation import Proposer

Kind = Literal["right", "wrong", "random", "ngram"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LONGEST: Final = 9  # of random guesses


class Told:
    """Proposes what will come, or what will not."""

    def __init__(self, answers: Mapping[int, Sequence[int]], kind: Kind, vocabulary: int) -> None:
        self._answers = answers
        self._kind = kind
        self._vocabulary = vocabulary
        self._random = Random(len(answers))

    def propose(self, sequence: TokenSequence, _earlier: NgramIndex) -> Iterator[tuple[int, int]]:
        """Guess the tokens after those that are known; past the answer's end whatever it likes."""
        coming = chain([*self._answers.get(sequence.key, ())][sequence.index :], repeat(0))
        length = self._random.randint(0, LONGEST) if self._kind == "random" else None
        for token in islice(coming, length):
            yield (token + self._miss()) % self._vocabulary, len(FIRST_RATES) - 1

    def _miss(self) -> int:
        if self._kind == "random":
            return int(self._random.random() < 0.3)
        return int(self._kind == "wrong")


class Always(Speculation):
    """Drafts all that there is room for, the oldest row first, whatever came of it before."""

    def guess(self, sequence: TokenSequence, least: float) -> Guess:
        """Guess all there is to guess, as if it were sure to come, unless drafts spoil the row."""
        guess = super().guess(sequence, least)
        guessing = sequence.guessing
        assert guessing is not None
        if not guessing.stopped:
            guess = guessing.guess = Guess()
            proposed = self._proposer.propose(sequence, guessing.kind.index)
            for token, evidence in islice(proposed, self.most):
                guess.add(token, evidence, 1.0)
        return guess

    def choose(
        self,
        chances: Sequence[Sequence[float]],
        _prices: Sequence[float],
        _cost: Callable[[int], float],
        _useful: int,
        most: int,
    ) -> list[int]:
        """Draft them."""
        lengths = []
        for own in chances:
            lengths.append(min(len(own), most))
            most -= lengths[-1]
        return lengths


def always(
    kind: Kind, most: int, answers: Mapping[int, Sequence[int]], vocabulary: int
) -> Speculation:
    """Make one of a kind; `answers` by the requests' keys."""
    proposer: Proposer = NgramProposer()
    if kind != "ngram":
        proposer = Told(answers, kind, vocabulary)
    return Always(most, proposer)

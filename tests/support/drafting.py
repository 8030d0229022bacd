"""Drafts whenever there is room, by proposers that know the answer, or are wrong on purpose."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Literal, get_args

from worker.engine.speculation import NgramProposer, Speculation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from worker.engine.sequence import TokenSequence
    from worker.engine.speculation import Proposer

Kind = Literal["right", "wrong", "random", "ngram"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class Told:
    """Proposes what will come, or what will not."""

    def __init__(self, answers: Mapping[int, Sequence[int]], kind: Kind, vocabulary: int) -> None:
        self._answers = answers
        self._kind = kind
        self._vocabulary = vocabulary
        self._random = Random(len(answers))

    def propose(self, sequence: TokenSequence, most: int) -> Sequence[int]:
        """Guess the tokens after those that are known; past the answer's end whatever it likes."""
        answer = [*self._answers.get(sequence.key, ())]
        coming = answer[sequence.index : sequence.index + most]
        coming += [0] * (most - len(coming))
        if self._kind == "random":
            coming = coming[: self._random.randint(0, most)]
        return [(token + self._miss()) % self._vocabulary for token in coming]

    def _miss(self) -> int:
        if self._kind == "random":
            return int(self._random.random() < 0.3)
        return int(self._kind == "wrong")


class Always(Speculation):
    """Drafts all that there is room for, whatever came of it before."""

    def price(self, _decodes: int) -> float:
        """Return nothing: it costs nothing."""
        return 0.0

    def draft(self, sequence: TokenSequence, price: float, room: int) -> tuple[int, ...]:
        """Draft the whole guess, unless drafts spoil the row."""
        super().draft(sequence, price, room)
        guessing = sequence.guessing
        assert guessing is not None
        return tuple(guessing.guess[: max(0, room)])


def always(
    kind: Kind, most: int, answers: Mapping[int, Sequence[int]], vocabulary: int
) -> Speculation:
    """Make one of a kind; `answers` by the requests' keys."""
    proposer: Proposer = NgramProposer()
    if kind != "ngram":
        proposer = Told(answers, kind, vocabulary)
    return Always(most, proposer)

"""What was guessed of one sequence."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.engine.answer_kinds import AnswerKind

PACE: Final = 0.3  # of a sequence's difference from its kind
MOST_BIAS: Final = 3.0  # odds of 20 to 1

PATIENCE: Final = 8  # poor guesses in a row, and as many again, for each step of rest after one
MOST_REST: Final = 3


class Guess:
    """Tokens that may come next, each with its evidence and the chance that it and all before come.

    Chances fall.
    """

    __slots__ = ("chances", "evidence", "ids")

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.evidence: list[int] = []
        self.chances: list[float] = []

    def add(self, token: int, evidence: int, chance: float) -> None:
        """Guess one token more."""
        self.ids.append(token)
        self.evidence.append(evidence)
        self.chances.append(chance)


class Guessing:
    """What is known of one sequence's guesses: its kind's rates, and how it differs from its kind.

    Guesses count whether they were drafted or not: what was guessed of the token that comes anyway
    tells as much. So it is found out when drafts would pay again. Looking costs a little, though: a
    sequence that could not be guessed for a while is looked at every few steps only.
    """

    __slots__ = ("_poor", "_rest", "bias", "guess", "kind", "stopped")

    def __init__(self, kind: AnswerKind) -> None:
        self.kind = kind
        self.bias = 0.0  # on the logarithm of the odds, as in logistic regression
        self.guess: Guess | None = None
        self.stopped = False  # drafts break this sequence's own tokens
        self._poor = 0  # guesses in a row that were none, or too unlikely
        self._rest = 0  # steps to go without one

    def rests(self) -> bool:
        """Whether nothing is to be guessed in this step."""
        resting = self.stopped or self._rest > 0
        self._rest -= self._rest > 0
        return resting

    def judge(self, *, poor: bool) -> None:
        """Take notice of whether a guess was too unlikely to be drafted, whatever came."""
        self._poor = self._poor + 1 if poor else 0
        self._rest = min(self._poor // PATIENCE, MOST_REST)

    def rate(self, evidence: int) -> float:
        """Return how likely a token of this evidence comes, if those before it do."""
        rate = self.kind.rates[evidence]
        odds = exp(self.bias) * rate / (1 - rate)
        return odds / (1 + odds)

    def note(self, ids: Sequence[int]) -> None:
        """Compare the guess with the tokens that came, up to the first that was wrong."""
        guess, self.guess = self.guess, None
        if guess is None:
            return
        for guessed, evidence, came in zip(guess.ids, guess.evidence, ids, strict=False):
            hit = guessed == came
            bias = self.bias + PACE * (hit - self.rate(evidence))
            self.bias = max(-MOST_BIAS, min(MOST_BIAS, bias))
            self.kind.rates.note(evidence, hit=hit)
            if not hit:
                break

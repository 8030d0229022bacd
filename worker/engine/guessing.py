"""What was guessed of one sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.engine.answer_kinds import AnswerKind


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
    """A sequence's kind of answer, its latest guess, and whether drafts break its own tokens.

    Guesses count whether they were drafted or not: what was guessed of the token that comes anyway
    tells as much. So it is found out at no cost when drafts would pay again.
    """

    __slots__ = ("guess", "kind", "stopped")

    def __init__(self, kind: AnswerKind) -> None:
        self.kind = kind
        self.guess: Guess | None = None
        self.stopped = False

    def note(self, ids: Sequence[int]) -> None:
        """Compare the guess with the tokens that came, up to the first that was wrong."""
        guess, self.guess = self.guess, None
        if guess is None:
            return
        for guessed, evidence, came in zip(guess.ids, guess.evidence, ids, strict=False):
            self.kind.rates.note(evidence, hit=guessed == came)
            if guessed != came:
                break

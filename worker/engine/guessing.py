"""How well one sequence's next tokens are guessed, and how many guesses pay by that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTHS: Final = (1, 3, 7, 11)
"""Of drafts: with the token before them rows of 2, 4, 8 and 12, which products come in
(block_products.py); attention takes up to 12 new tokens of a sequence as decodes."""

FIRST_RATE: Final = 0.5  # before anything is known
WEIGHT: Final = 0.15  # of the latest guess


class Guessing:
    """What was guessed last, and the share of guesses that came true, each where those before did.

    Guesses count whether they were drafted or not: what was guessed of the token that comes anyway
    tells as much. So a row that does not draft is found out, at no cost, when it would pay again.
    """

    __slots__ = ("guess", "rate", "stopped")

    def __init__(self) -> None:
        self.guess: Sequence[int] = ()
        self.rate = FIRST_RATE
        self.stopped = False  # drafts break this sequence's own tokens

    def note(self, ids: Sequence[int]) -> None:
        """Compare the guess with the tokens that came."""
        for guessed, came in zip(self.guess, ids, strict=False):
            self.rate += WEIGHT * ((guessed == came) - self.rate)
            if guessed != came:
                break
        self.guess = ()

    def pays(self, price: float, most: int) -> int:
        """Return how many tokens to draft, at most so many, where one costs `price` tokens' time.

        That of `LENGTHS` with the most tokens to be expected beyond its price; 0 if none has.
        """
        best, gain = 0, 0.0
        for length in LENGTHS:
            if length > most:
                break
            expected = sum(self.rate**place for place in range(1, length + 1))
            if expected - length * price > gain:
                best, gain = length, expected - length * price
        return best

"""How often guesses come true."""

from __future__ import annotations

from typing import Final

from aril.worker.engine.votes import FIRST_RATES

_FIRST_SEEN: Final = 4  # guesses that a rate counts for before any was seen
_MOST_SEEN: Final = 50  # that a rate remembers: what changes is found out


class HitRates:
    """The share of guesses that came true, by their evidence (votes.py)."""

    __slots__ = ("_rates", "_seen")

    def __init__(self) -> None:
        self._rates = [*FIRST_RATES]
        self._seen = [_FIRST_SEEN] * len(FIRST_RATES)

    def __getitem__(self, evidence: int) -> float:
        """Return how likely a guess of this evidence is, more than 0 and less than 1."""
        return self._rates[evidence]

    def note(self, evidence: int, *, hit: bool) -> None:
        """Take in whether a guess came true."""
        seen = self._seen[evidence] = min(self._seen[evidence] + 1, _MOST_SEEN)
        self._rates[evidence] += (hit - self._rates[evidence]) / seen

"""A row's distribution inverted without ordering all of it, on a CPU.

Tokens fall into bins by their logit, so that the bins are in order while their tokens are not. How
many tokens and how much probability lie before a bin is then known for all bins at once, and only
the two or three bins in which a border falls are put in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Ids = NDArray[np.intp]

_BINS: Final = 4096
_DEEPEST: Final = 128.0  # below the largest logit; what is lower has no probability in float32
_SHALLOWEST: Final = 1e-3  # a row of equal logits needs some width


class Cut(NamedTuple):
    """Which part of a row's distribution is left, and the number at which it is inverted."""

    min_p: float
    top_k: int
    top_p: float
    uniform: float  # below 1


def invert(scaled: Floats, probabilities: Floats, cut: Cut) -> int:
    """Return the token at which a row's cumulative distribution passes its number.

    scaled, probabilities: [vocab]; the logits divided by the temperature, from 0 down, and their
    softmax. Tokens count in descending order of `scaled`, equal ones by id.
    """
    return _Row(scaled, probabilities).token(cut)


class _Row:
    """One distribution; `counts` and `masses` are of all tokens up to a bin's end."""

    def __init__(self, scaled: Floats, probabilities: Floats) -> None:
        depth = min(max(-float(scaled.min()), _SHALLOWEST), _DEEPEST)
        upside = np.maximum(scaled, np.float32(-depth)) * np.float32((1 - _BINS) / depth)
        self._bins = upside.astype(np.intp)  # the lower the logit, the higher the bin
        self._counts = np.bincount(self._bins, minlength=_BINS).cumsum()
        self._masses = np.bincount(self._bins, probabilities, _BINS).cumsum()
        self._scaled = scaled
        self._probabilities = probabilities
        self._ordered: dict[int, tuple[Ids, Doubles]] = {}

    def token(self, cut: Cut) -> int:
        """Cut and invert."""
        left = min(self._likely(cut.min_p), cut.top_k)
        kept = min(1 + self._count(cut.top_p * self._mass(left), equal=False), left)
        # Sums of a bin in two orders differ by their rounding, so the border is kept by hand.
        position = min(self._count(cut.uniform * self._mass(kept), equal=True), kept - 1)
        place, tokens, _ = self._find(position)
        return int(tokens[place])

    def _likely(self, min_p: float) -> int:
        if not min_p:  # what has no probability, as behind a mask, may not come by rounding
            return int(np.count_nonzero(self._probabilities))
        return int(
            np.count_nonzero(self._probabilities >= min_p * float(self._probabilities.max()))
        )

    def _mass(self, count: int) -> float:
        """Sum the probabilities of the first `count` tokens, one at least."""
        place, _, masses = self._find(count - 1)
        return float(masses[place])

    def _count(self, mass: float, *, equal: bool) -> int:
        """How many tokens' cumulative mass is below a mass, or equal to it."""
        side: Literal["left", "right"] = "right" if equal else "left"
        number = int(self._masses.searchsorted(mass, side))
        if number == _BINS:
            return len(self._scaled)
        before = int(self._counts[number - 1]) if number else 0
        return before + int(self._in_order(number)[1].searchsorted(mass, side))

    def _find(self, position: int) -> tuple[int, Ids, Doubles]:
        """Return a token's place in its bin, and that bin's tokens and masses in order."""
        number = int(self._counts.searchsorted(position, "right"))
        before = int(self._counts[number - 1]) if number else 0
        return position - before, *self._in_order(number)

    def _in_order(self, number: int) -> tuple[Ids, Doubles]:
        """Return a bin's tokens in order, and the mass of each and all before it."""
        if number not in self._ordered:
            tokens = np.flatnonzero(self._bins == number)
            tokens = tokens[np.argsort(-self._scaled[tokens], kind="stable")]
            before = float(self._masses[number - 1]) if number else 0.0
            inside = self._probabilities[tokens].astype(np.float64)
            inside[:1] += before
            self._ordered[number] = tokens, inside.cumsum()
        return self._ordered[number]

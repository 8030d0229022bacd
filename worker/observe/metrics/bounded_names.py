"""Names in labels, at most so many: who is used most has a name, all others are one. Pure.

Each increment is booked once, to whoever's label the name has at that moment, and stays there. So
every series only rises, and the rates of all labels add up to the whole. A name that gives way
takes its series along; one that comes back begins at 0, as after a restart.

Weights of names that have no label are kept for so many only: past that the lightest gives its
place, and its weight, to the next (Metwally et al., "Efficient Computation of Frequent and Top-k
Elements in Data Streams", ICDT 2005). Names come from tenants: there is no end of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER: Final = "_other"
"""Label of all that have none of their own. No tenant, adapter or topic of ours begins so."""

HALF_LIFE_SECONDS: Final = 3_600.0
TRACKED: Final = 4  # names without a label whose weight is known, for each that may have one
LEAD: Final = 1.25  # how much heavier one has to be to take another's place: no to and fro


class BoundedNames:
    """Says which label a name has. Weights halve every hour."""

    def __init__(self, most: int, *, forget: Callable[[str], None]) -> None:
        """Give up to `most` names a label; `forget` hears of one that has lost it."""
        self._most = most
        self._forget = forget
        self._named: dict[str, float] = {}
        self._others: dict[str, float] = {}
        self._least = 0.0  # no named one's weight is below: they rise until all are halved
        self._halved: float | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The names that have a label."""
        return tuple(self._named)

    def label(self, name: str) -> str:
        """Return a name's label, without giving it any weight."""
        return name if name in self._named else OTHER

    def use(self, name: str, weight: float, now: float) -> str:
        """Add to a name's weight, at a monotonic time in seconds; return its label from now on."""
        self._halve(now)
        if name in self._named:
            self._named[name] += weight
            return name
        if not self._most:
            return OTHER
        weight += self._place(name)
        if len(self._named) >= self._most and not self._displace(weight):
            self._others[name] = weight
            return OTHER
        self._named[name] = weight
        self._least = min(self._least, weight)
        return name

    def _displace(self, weight: float) -> bool:
        """Take the lightest one's name away, if somebody of this weight may have it."""
        if weight <= LEAD * self._least:
            return False
        lightest = min(self._named, key=self._named.__getitem__)
        self._least = self._named[lightest]
        if weight <= LEAD * self._least:
            return False
        self._others[lightest] = self._named.pop(lightest)
        self._forget(lightest)
        return True

    def _place(self, name: str) -> float:
        """Take a name out of those without a label; return the weight that it begins with."""
        known = self._others.pop(name, None)
        if known is not None:
            return known
        if len(self._others) < TRACKED * self._most:
            return 0.0
        lightest = min(self._others, key=self._others.__getitem__)
        return self._others.pop(lightest)

    def _halve(self, now: float) -> None:
        if self._halved is None:
            self._halved = now
        while now - self._halved >= HALF_LIFE_SECONDS:
            self._halved += HALF_LIFE_SECONDS
            self._least /= 2
            for weights in (self._named, self._others):
                for name in weights:
                    weights[name] /= 2

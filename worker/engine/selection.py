"""A row's distribution inverted on a CPU; only what lies around the borders is put in order.

Masses are exact (`aril.worker.engine.masses`), so a sum is the same in every order, and what is
found here is bit for bit what a whole sort finds. An evenly spaced sample says about where a border
is, an exact sum above that place how far off it is, and the tokens from there to the border, some
hundreds, are put in order. A sample that misleads costs time only: the next look begins at what is
known by then, and the last one sees all tokens.
"""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
import torch
from torch.nn.functional import threshold

from aril.worker.engine.masses import WHOLE, whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float32]
    Doubles = NDArray[np.float64]
    Ids = NDArray[np.int64]

_SAMPLE: Final = 2048
_FEW: Final = 2048  # tokens that are rather put in order than summed above
_SLACK: Final = 2e-5  # how far softmax may leave the order of the logits by rounding, and more
_OFF: Final = 0.1  # a sample whose sum is as wrong as that has missed what is likely
_SPLIT: Final = 32_768  # numbers that torch takes in one thread: a row is no work for two
_LOOKS: Final = 12  # five are many; then all tokens are put in order
_LEAST: Final = 5e-324  # some mass: what is reached by the first token
_ALL: Final = -1.0  # every probability is above it


class Cut(NamedTuple):
    """Which part of a row's distribution is left, and the number at which it is inverted."""

    min_p: float
    top_k: int  # the vocabulary's size is none
    top_p: float
    uniform: float  # below 1


class _Edge(NamedTuple):
    """A probability; the mass of all tokens above it, and how many of the sample are."""

    value: float
    mass: float
    place: int


class _Window(NamedTuple):
    """Neighbouring tokens in order, and the mass of each and all before it.

    Every token with which a mass from `top` to `bottom` may be passed or reached is among them.
    """

    top: float
    bottom: float
    tokens: Ids
    masses: Doubles


def select(scaled: Floats, probabilities: Floats, cut: Cut) -> int:
    """Return the token at which a row's cumulative distribution passes its number.

    scaled, probabilities: [vocab]; the logits divided by the temperature, from 0 down, and their
    softmax. Tokens count in descending order of `scaled`, equal ones by id.
    """
    return _Row(scaled, probabilities).token(cut)


class _Row:
    """One row; `edges` and `windows` are what is known of it by now."""

    def __init__(self, scaled: Floats, probabilities: Floats) -> None:
        self._scaled = scaled
        self._p = probabilities
        self._few = max(_FEW, len(scaled) // 32)
        self._step = max(1, len(scaled) // _SAMPLE)
        self._rising = np.sort(probabilities[:: self._step])
        self._sample = self._rising[::-1]
        self._sums = np.zeros(len(self._sample) + 1)
        self._sample.cumsum(dtype=np.float64, out=self._sums[1:])
        self._edges = [_Edge(math.inf, 0.0, 0), _Edge(_ALL, math.nan, len(self._sample))]
        self._windows: list[_Window] = []

    def token(self, cut: Cut) -> int:
        """Cut and invert."""
        left = self._left(cut)
        mass = 1.0 if left is None else left
        if cut.top_p < 1:
            mass = left = self._reached(cut.top_p * mass)
        goal = cut.uniform * mass
        window = self._find(goal, "right")
        if window is None and left is None:  # by rounding the sum of all is below 1
            goal = cut.uniform * self._edges[-1].mass
            window = self._find(goal, "right")
        if window is None:
            raise AssertionError("a number below 1 times a mass is below that mass")
        return int(window.tokens[window.masses.searchsorted(goal, "right")])

    def _left(self, cut: Cut) -> float | None:
        """Return the mass of what min-p and top-k leave, None where they are off."""
        likely, below = len(self._p), math.nan
        if cut.min_p > 0:
            below = _next_below(cut.min_p * float(self._p.max()))
            likely = int(np.count_nonzero(self._p > np.float32(below)))
        if cut.top_k < likely:
            return self._first(cut.top_k)
        return None if math.isnan(below) else self._sum_above(below, likely)

    def _first(self, count: int) -> float:
        """Return the mass of the first so many tokens, fewer than all."""
        ids, scaled = None, self._scaled
        place = count // self._step + 4 + math.isqrt(9 * count // self._step)
        if place < len(self._sample):
            value = self._sample[place]
            if np.count_nonzero(self._p > value) >= count:
                ids = np.flatnonzero(self._p > _down(float(value)))
                scaled = scaled[ids]
        last = len(scaled) - count
        least = np.partition(scaled, last)[last]
        first = np.flatnonzero(scaled > least)
        equal = np.flatnonzero(scaled == least)[: count - len(first)]
        first = np.concatenate((first, equal))
        if ids is not None:
            first = ids[first]
        if count > self._few:
            return float(whole(self._p[first].astype(np.float64)).sum())
        tokens, masses = self._in_order(first)
        sums = masses.cumsum()
        self._windows.append(_Window(0.0, float(sums[-1]), tokens, sums))
        return float(sums[-1])

    def _reached(self, goal: float) -> float:
        """Return the least mass of first tokens that is not below a mass, or that of all."""
        goal = max(goal, _LEAST)
        window = self._find(goal, "left")
        if window is None:
            return self._edges[-1].mass
        return float(window.masses[window.masses.searchsorted(goal, "left")])

    def _find(self, goal: float, side: Literal["left", "right"]) -> _Window | None:
        """Return the window in which a mass is passed (`right`) or reached; None if all is less."""
        reaches = operator.le if side == "right" else operator.lt
        for look in range(_LOOKS + 1):
            for window in self._windows:
                if reaches(window.top, goal) and not reaches(window.bottom, goal):
                    return window
            at = 1
            while reaches(self._edges[at].mass, goal):  # NaN is not
                at += 1
                if at == len(self._edges):
                    return None
            if look < _LOOKS - 1:
                self._look(self._edges[at - 1], self._edges[at], goal)
            else:
                self._open(_ALL, math.inf, top=0.0)
        raise AssertionError("all tokens in order, and none with which a mass is reached")

    def _look(self, upper: _Edge, lower: _Edge, goal: float) -> None:
        """Learn more of the tokens between two edges, about where a mass is reached."""
        first, last, step = upper.place, lower.place, self._step
        sample, sums = self._sample, self._sums
        known = not math.isnan(lower.mass)
        bottom = lower.mass if known else 1.0
        if (last - first) * step <= self._few:
            self._open(lower.value, upper.value, top=upper.mass)
            return
        if first == 0 and not self._windows and self._top_heavy(goal):
            place = margin = self._few // 2 // step
        else:
            part = min(max((goal - upper.mass) / (bottom - upper.mass), 0.0), 1.0)
            place = int(sums.searchsorted(sums[first] + part * (sums[last] - sums[first])))
            place = min(max(place, first), last)
            margin = 2 + math.isqrt(2 * min(place - first, last - place))
        if (place + margin - first) * step <= self._few:
            edge = float(sample[min(place + margin, last) - 1])
            if lower.value < edge < upper.value:
                self._open(edge, upper.value, top=upper.mass)
                return
        elif known and (last - place + margin) * step <= self._few:
            edge = float(sample[max(place - margin, first)])
            if lower.value < edge < upper.value:
                self._open(lower.value, edge, bottom=lower.mass)
                return
        else:
            edge = float(sample[min(place, last - 1)])
            if lower.value < edge < upper.value:
                self._sum_above(edge)
                return
        self._open(lower.value, upper.value, top=upper.mass)  # equal ones, or none to go by

    def _top_heavy(self, goal: float) -> bool:
        """Whether a mass may be reached by few tokens, of which a sample shows too little."""
        seen = float(self._sums[-1]) * self._step
        return abs(seen - 1) > _OFF or self._sums[self._few // 2 // self._step] * self._step > goal

    def _sum_above(self, value: float, count: int | None = None) -> float:
        """Add an edge, perhaps with so many tokens above it; return their mass."""
        if count is not None and count <= self._few:
            above = self._p[self._p > np.float32(value)].astype(np.float64)
            mass = float(whole(above).sum())
        else:
            mass = sum(map(_above(value), torch.from_numpy(self._p).split(_SPLIT)))
        self._note(value, mass)
        return mass

    def _open(
        self, low: float, high: float, *, top: float = 0.0, bottom: float | None = None
    ) -> _Window:
        """Put the tokens from above `low` up to `high` in order; add window and edges.

        Needs the mass above `high`, or that above `low` as `bottom`.
        """
        some = self._p > _down(low)
        if high < math.inf:
            some &= self._p <= _up(high)
        tokens, masses = self._in_order(np.flatnonzero(some))
        if len(tokens) == len(self._p):
            low, high, top, bottom = _ALL, math.inf, 0.0, None
            above, inside = 0.0, float(masses.sum())
        else:
            p = self._p[tokens]
            above = 0.0 if math.isinf(high) else float(masses[p > np.float32(high)].sum())
            inside = float(masses[p > np.float32(low)].sum()) - above
        if bottom is not None:
            top = bottom - inside
        masses[:1] += top - above
        window = _Window(top, top + inside, tokens, masses.cumsum())
        self._windows.append(window)
        if not math.isinf(high):
            self._note(high, top)
        self._note(low, window.bottom)
        return window

    def _in_order(self, ids: Ids) -> tuple[Ids, Doubles]:
        """Put tokens in order; return their masses too."""
        # From 0 down, the bits of floats rise; -0 counts as 0.
        bits = self._scaled[ids].view(np.int32) & 0x7FFFFFFF
        keys = bits.astype(np.int64) << 32 | ids
        keys.sort()
        tokens = keys & 0xFFFFFFFF
        return tokens, whole(self._p[tokens].astype(np.float64))

    def _note(self, value: float, mass: float) -> None:
        """Add what lies above a probability to what is known."""
        at = next(at for at, edge in enumerate(self._edges) if edge.value <= value)
        known = self._edges[at].value == value
        if known and not math.isnan(self._edges[at].mass):
            return
        place = len(self._rising) - int(self._rising.searchsorted(np.float32(value), "right"))
        self._edges[at : at + known] = [_Edge(value, mass, place)]


def _next_below(bound: float) -> float:
    """Return the largest float32 below a bound: what is above it is at least the bound."""
    nearest = np.float32(bound)
    return float(nearest if float(nearest) < bound else np.nextafter(nearest, np.float32(-1)))


def _above(value: float) -> Callable[[Tensor], float]:
    """Return what sums the probabilities above a value."""
    if value >= WHOLE:
        return lambda some: threshold(some, value, 0.0).sum(dtype=torch.float64).item()
    return lambda some: whole(threshold(some, value, 0.0).double()).sum().item()


def _up(value: float) -> np.float32:
    return np.float32(value * (1 + _SLACK))


def _down(value: float) -> np.float32:
    return np.float32(value * (1 - _SLACK) if value > 0 else value)

"""Distributions inverted by bins give the token that a whole sort gives."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.engine.binned import Cut, invert

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOGITS = st.one_of(
    st.floats(-1, 0, width=32),  # all of them alike
    st.sampled_from([0.0, -0.0, -0.25, -2.5, -100.0, -127.0, -129.0, -3e38, -math.inf]),
    st.floats(-200, 0, width=32),
)
CUTS = st.builds(
    Cut,
    min_p=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
    top_k=st.integers(1, 300),
    top_p=st.one_of(st.just(1.0), st.floats(1e-3, 1.0)),
    uniform=st.floats(0, 1, exclude_max=True),
)


def sorted_whole(scaled: NDArray[np.float32], p: NDArray[np.float32], cut: Cut) -> tuple[int, int]:
    """Return the first and the last token that may be meant, as sums round one way or the other."""
    order = np.argsort(-scaled, kind="stable")
    sums = p[order].astype(np.float64).cumsum()
    left = min(int((p >= cut.min_p * float(p.max())).sum()), cut.top_k)
    slack = 1e-12

    def reached(mass: float) -> tuple[int, int]:
        return int((sums <= mass - slack).sum()), int((sums <= mass + slack).sum())

    fewest, most = (min(1 + count, left) for count in reached(cut.top_p * float(sums[left - 1])))
    first = reached(cut.uniform * float(sums[fewest - 1]))[0]
    last = reached(cut.uniform * float(sums[most - 1]))[1]
    return min(first, fewest - 1), min(last, most - 1)


@settings(max_examples=300)
@given(st.lists(LOGITS, min_size=1, max_size=300), CUTS)
def test_the_token_is_that_of_a_whole_sort(logits: list[float], cut: Cut) -> None:
    """Equal logits, flat rows, far tails and each cut; and the token is one that can be drawn."""
    found = np.array([*logits, 0.0], np.float32)
    p = np.exp(found.astype(np.float64))
    probabilities = (p / p.sum()).astype(np.float32)
    order = np.argsort(-found, kind="stable").tolist()
    first, last = sorted_whole(found, probabilities, cut)
    token = invert(found, probabilities, cut)
    assert first <= order.index(token) <= last
    assert probabilities[token] > 0 or cut.uniform > 1 - 1e-6

"""The drafts of a step against all that there could be."""

from __future__ import annotations

from itertools import accumulate, product
from operator import mul
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.draft_lengths import MARGIN, draft_lengths
from aril.worker.engine.step_cost import StepCost

if TYPE_CHECKING:
    from collections.abc import Sequence

RATES = st.lists(st.lists(st.sampled_from([0.05, 0.3, 0.6, 0.9, 0.99]), max_size=4), max_size=4)
STEP = StepCost()


def cost_of(tokens: int, drafted: int) -> float:
    """Return what such a step costs in products."""
    return STEP(tokens + drafted, tokens + drafted)


def chances_of(rates: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the chances that guesses of these rates come, one after the other."""
    return [[*accumulate(own, mul)] for own in rates]


@given(rates=RATES, prompt=st.integers(0, 40), most=st.integers(0, 12))
def test_no_other_lengths_would_bring_more(
    rates: list[list[float]], prompt: int, most: int
) -> None:
    """For the same price a token, of all lengths that the rows' guesses and the room allow."""
    chances, useful = chances_of(rates), len(rates) + prompt + 1
    price = 0.2

    def rate(lengths: Sequence[int]) -> float:
        come = sum(sum(own[:length]) for own, length in zip(chances, lengths, strict=True))
        return (useful + come) / (cost_of(useful, sum(lengths)) + price * sum(lengths))

    prices = [price] * len(rates)
    lengths = draft_lengths(chances, prices, lambda k: cost_of(useful, k), useful, most)
    everything = product(*(range(len(own) + 1) for own in chances))
    best = max((rate(each) for each in everything if sum(each) <= most), default=0.0)
    nothing = rate([0] * len(rates))
    assert sum(lengths) <= most
    if any(lengths):
        assert rate(lengths) == pytest.approx(best)
        assert rate(lengths) > MARGIN * nothing
    else:
        assert best <= MARGIN * nothing * (1 + 1e-9)


def lengths_of(rates: Sequence[Sequence[float]], price: float = 0.2) -> list[int]:
    """Return what rows draft that decode with nothing beside them."""
    rows = len(rates)
    return draft_lengths(chances_of(rates), [price] * rows, lambda k: cost_of(rows, k), rows, 64)


def test_a_step_that_is_filled_up_anyway_takes_what_one_guess_alone_is_not_worth() -> None:
    """Four rows and a guess are computed as eight: one does not pay, one of each row does."""
    assert lengths_of([[0.9], [], [], []]) == [0, 0, 0, 0]
    assert lengths_of([[0.9]] * 4) == [1, 1, 1, 1]
    assert lengths_of([[0.4], [], []]) == [1, 0, 0]  # of three rows the fourth place is free


def test_the_likeliest_guesses_of_all_rows_are_taken() -> None:
    """A row that is sure drafts far, one that is not leaves it the places."""
    assert lengths_of([[0.99] * 7, [0.3] * 7, [0.99] * 7, [0.1]]) == [6, 0, 6, 0]


def test_more_is_drafted_the_better_it_goes_and_the_less_it_costs() -> None:
    """Alone in its step: the whole guess, a few, one, none."""
    found = [lengths_of([[rate] * 7])[0] for rate in (0.99, 0.7, 0.3, 0.02)]
    assert found == sorted(found, reverse=True)
    assert found[0] == 7
    assert found[-1] == 0
    assert lengths_of([[0.9] * 7], price=20.0) == [0]

"""When a draft pays, by what came of the guesses before."""

from __future__ import annotations

import pytest

from worker.engine.guessing import LENGTHS, Guessing


def told(hits: int, misses: int) -> Guessing:
    """So many guesses came true, then so many did not."""
    guessing = Guessing()
    for came in [1] * hits + [0] * misses:
        guessing.guess = [1]
        guessing.note([came])
    return guessing


@pytest.mark.parametrize(
    ("hits", "misses", "price", "length"),
    [
        (60, 0, 0.05, 11),  # a copy, alone in its step
        (60, 0, 0.9, 11),  # and in a full one
        (0, 60, 0.05, 0),
        (60, 3, 0.05, 7),
        (60, 3, 0.5, 1),
        (60, 3, 0.7, 0),
    ],
)
def test_more_is_drafted_the_better_it_went_and_the_less_it_costs(
    hits: int, misses: int, price: float, length: int
) -> None:
    """A draft is as long as its last tokens are worth their price."""
    assert told(hits, misses).pays(price, 11) == length


def test_lengths_are_few() -> None:
    """Whatever there is room for."""
    guessing = told(60, 0)
    assert {guessing.pays(0.05, room) for room in range(40)} == {0, *LENGTHS}


def test_a_guess_counts_up_to_the_first_that_was_wrong() -> None:
    """What stands behind it was guessed of an answer that did not come."""
    guessing, other = Guessing(), Guessing()
    guessing.guess = [1, 2, 9, 9, 9, 9]
    guessing.note([1, 2, 3])
    other.guess = [1, 2, 9]
    other.note([1, 2, 3])
    assert guessing.rate == other.rate
    assert not guessing.guess


def test_a_row_that_does_not_draft_is_found_out() -> None:
    """Its guesses are compared with the one token that comes anyway."""
    guessing = told(0, 60)
    assert guessing.pays(0.1, 7) == 0
    for _ in range(5):
        guessing.guess = [4, 5, 6]
        guessing.note([4])
    assert guessing.pays(0.1, 7) > 0

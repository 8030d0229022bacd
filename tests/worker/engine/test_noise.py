"""The counter-based generator against the published vectors, and as a source of noise."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.noise import philox4x32, uniform

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        (
            (0, 0, 0, 0),
            (0, 0),
            (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
        ),
        (
            (ONES, ONES, ONES, ONES),
            (ONES, ONES),
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),  # the digits of pi
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    """The three vectors that Random123 publishes for philox4x32 with ten rounds come out."""
    assert philox4x32(counter, key) == expected


def test_uniform_is_built_from_the_first_two_words() -> None:
    """Seed 0, index 0 gives the top 53 bits of the zero vector: it must never move."""
    expected = ((0x6627E8D5 >> 5) * 2**26 + (0xE169C58D >> 6)) / 2**53
    assert uniform(0, 0) == expected


@given(seed=st.integers(0, 2**63 - 1), index=st.integers(0, 2**40))
def test_uniform_is_in_the_unit_interval(seed: int, index: int) -> None:
    """Every draw is at least 0 and below 1, and the same again."""
    draw = uniform(seed, index)
    assert 0 <= draw < 1
    assert draw == uniform(seed, index)


@given(seed=st.integers(0, 2**63 - 1), bit=st.integers(0, 62), index=st.integers(0, 1000))
def test_every_bit_of_seed_and_index_counts(seed: int, bit: int, index: int) -> None:
    """Changing any one bit of the seed or of the index changes the number."""
    assert uniform(seed, index) != uniform(seed ^ 1 << bit, index)
    assert uniform(seed, index) != uniform(seed, index ^ 1 << bit)


def test_uniform_is_uniform_over_indices_and_seeds() -> None:
    """Sixteen equal bins fill evenly (chi-square, 15 degrees, one in a million) along both axes."""
    for draws in (
        [uniform(12345, index) for index in range(16_000)],
        [uniform(seed, 7) for seed in range(16_000)],
    ):
        bins = [0] * 16
        for draw in draws:
            bins[int(draw * 16)] += 1
        assert sum((count - 1000) ** 2 / 1000 for count in bins) < 56.5

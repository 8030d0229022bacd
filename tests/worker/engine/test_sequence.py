"""What a sequence derives from its few integers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.sequence import TokenSequence
from tests.support.generation import request


@given(
    prompt=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    output=st.lists(st.integers(0, 9), max_size=9),
    start=st.integers(0, 20),
    count=st.integers(0, 20),
)
def test_tokens_are_a_slice_of_prompt_and_output(
    prompt: list[int], output: list[int], start: int, count: int
) -> None:
    """Any range over both lists is what slicing their sum gives."""
    sequence = TokenSequence(request(0, tuple(prompt), max_tokens=20))
    sequence.append(output)
    assert sequence.tokens(start, count) == (prompt + output)[start : start + count]


def test_resumed_tokens_are_prompt_and_output() -> None:
    """Visible tokens must be computed like prompt, but count as output for index and length."""
    sequence = TokenSequence(request(0, (5, 6, 7), max_tokens=6, resume=(8, 9)))
    assert sequence.output_ids == [8, 9]
    assert (sequence.index, sequence.length, sequence.pending) == (2, 5, 5)
    assert sequence.remaining == 4
    assert not sequence.decoding


def test_a_step_moves_a_sequence_from_prefill_to_decode() -> None:
    """Computed tokens leave one pending once a token was sampled behind them."""
    sequence = TokenSequence(request(0, (5, 6, 7)))
    sequence.advance(2)
    assert (sequence.pending, sequence.decoding) == (1, True)
    sequence.advance(1)
    sequence.append((8,))
    assert (sequence.pending, sequence.decoding, sequence.index) == (1, True, 1)


def test_preemption_keeps_the_tokens() -> None:
    """After a reset everything must be computed again and sampling goes on at the same index."""
    sequence = TokenSequence(request(0, (5, 6), adapter="a"))
    sequence.advance(2)
    sequence.append((8,))
    sequence.block_ids, sequence.slots = [3], (1,)
    sequence.reset()
    assert (sequence.computed, sequence.pending, sequence.index) == (0, 3, 1)
    assert not sequence.block_ids
    assert not sequence.slots
    assert sequence.tokens(0, 3) == [5, 6, 8]


@pytest.mark.parametrize("count", [0, -1, 3])
def test_advancing_past_the_tokens_is_a_bug(count: int) -> None:
    """More or fewer tokens than there are to compute raise."""
    with pytest.raises(ValueError, match="cannot advance"):
        TokenSequence(request(0, (5, 6))).advance(count)

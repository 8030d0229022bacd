"""Penalties against transformers' processor and a transcription of vLLM's description."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from schemas import Sampling
from worker.engine.penalties import bias_, has_penalties, penalise_

VOCAB = 11
TOKENS = st.lists(st.integers(0, VOCAB - 1), max_size=12)
LOGITS = st.lists(st.floats(-9, 9, width=32), min_size=VOCAB, max_size=VOCAB)


@given(logits=LOGITS, prompt=TOKENS.filter(len), output=TOKENS, penalty=st.floats(0.5, 3, width=32))
def test_repetition_is_transformers_over_prompt_and_output(
    logits: list[float], prompt: list[int], output: list[int], penalty: float
) -> None:
    """Every token seen in prompt or output is penalised once, as transformers does it."""
    row = torch.tensor(logits)
    expected = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor([prompt + output]), row[None].clone()
    )[0]
    penalise_(row, Sampling(repetition_penalty=penalty), prompt, output)
    assert torch.equal(row, expected)


@given(
    logits=LOGITS,
    prompt=TOKENS.filter(len),
    output=TOKENS,
    frequency=st.floats(-2, 2, width=32),
    presence=st.floats(-2, 2, width=32),
)
def test_frequency_and_presence_look_at_the_output_only(
    logits: list[float], prompt: list[int], output: list[int], frequency: float, presence: float
) -> None:
    """A logit falls by frequency times its count and once by presence; the prompt is free."""
    row = torch.tensor(logits)
    penalise_(row, Sampling(frequency_penalty=frequency, presence_penalty=presence), prompt, output)
    for token, (before, after) in enumerate(zip(logits, row.tolist(), strict=True)):
        count = output.count(token)
        expected = before - frequency * count - presence * (count > 0)
        assert abs(after - expected) <= 1e-5


def test_neutral_settings_are_no_penalties() -> None:
    """The defaults switch nothing on, and each penalty alone does."""
    assert not has_penalties(Sampling())
    assert has_penalties(Sampling(repetition_penalty=1.1))
    assert has_penalties(Sampling(presence_penalty=0.1))
    assert has_penalties(Sampling(frequency_penalty=-0.1))


@given(
    logits=LOGITS,
    biases=st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-100, 100, width=32)),
    output=st.integers(0, 4),
    ends=st.frozensets(st.integers(0, VOCAB - 1)),
)
def test_biases_are_added_and_ends_come_last(
    logits: list[float], biases: dict[int, float], output: int, ends: frozenset[int]
) -> None:
    """A bias shifts its own token; before `min_tokens` the ends have the lowest number there is."""
    row = torch.tensor(logits)
    sampling = Sampling(min_tokens=2, logit_bias={str(key): each for key, each in biases.items()})
    bias_(row, sampling, output, ends)
    for token, (before, after) in enumerate(zip(logits, row.tolist(), strict=True)):
        if token in ends and output < sampling.min_tokens:
            assert after == torch.finfo(torch.float32).min
        else:
            assert after == torch.tensor(before) + torch.tensor(biases.get(token, 0.0))


def test_a_bias_stays_within_the_range() -> None:
    """What is infinite stays so, and what is finite stays finite."""
    largest = torch.finfo(torch.float32).max
    row = torch.tensor([float("-inf"), -largest, largest])
    bias_(row, Sampling(logit_bias={"0": 100.0, "1": -100.0, "2": 100.0}), 0, frozenset())
    assert row.tolist() == [float("-inf"), -largest, largest]

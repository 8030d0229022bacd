"""Penalties against transformers' processor and a transcription of vLLM's description."""

from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RepetitionPenaltyLogitsProcessor

from aril.schemas import Sampling
from aril.worker.engine.penalties import Penalties, Shifts, has_penalties, shift_, shifts_of

VOCAB = 11


@dataclass
class Shifted:
    """What shifting needs to know of a row."""

    sampling: Sampling
    prompt_ids: tuple[int, ...] = ()
    output_ids: list[int] = field(default_factory=list)
    end_ids: frozenset[int] = frozenset()

    @property
    def index(self) -> int:
        """Index of the token that is sampled."""
        return len(self.output_ids)


def shift(logits: torch.Tensor, *rows: Shifted) -> None:
    """Shift [n, vocab] as the sampler does, without a copy to anywhere."""
    each = [shifts_of(row, place * logits.shape[1]) for place, row in enumerate(rows)]
    shifts = [torch.from_numpy(np.concatenate(some)) for some in zip(*each, strict=True)]
    ways = [row.sampling for row in rows]
    penalties = (
        [way.repetition_penalty for way in ways],
        [way.frequency_penalty for way in ways],
        [way.presence_penalty for way in ways],
    )
    told = Penalties(*(torch.tensor(some, dtype=torch.float64) for some in penalties))
    shift_(logits, Shifts(*shifts), told)


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
    asked = Shifted(Sampling(repetition_penalty=penalty), tuple(prompt), output)
    shift(row[None], asked)
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
    sampling = Sampling(frequency_penalty=frequency, presence_penalty=presence)
    shift(row[None], Shifted(sampling, tuple(prompt), output))
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
    shift(row[None], Shifted(sampling, output_ids=[0] * output, end_ids=ends))
    for token, (before, after) in enumerate(zip(logits, row.tolist(), strict=True)):
        if token in ends and output < sampling.min_tokens:
            assert after == torch.finfo(torch.float32).min
        else:
            assert after == torch.tensor(before) + torch.tensor(biases.get(token, 0.0))


def test_a_bias_stays_within_the_range() -> None:
    """What is infinite stays so, and what is finite stays finite."""
    largest = torch.finfo(torch.float32).max
    row = torch.tensor([float("-inf"), -largest, largest])
    shift(row[None], Shifted(Sampling(logit_bias={"0": 100.0, "1": -100.0, "2": 100.0})))
    assert row.tolist() == [float("-inf"), -largest, largest]


@given(
    cases=st.lists(
        st.tuples(LOGITS, TOKENS, TOKENS, st.sampled_from([1.0, 1.3]), st.sampled_from([0.0, 0.7])),
        min_size=1,
        max_size=4,
    )
)
def test_rows_are_shifted_together_as_alone(
    cases: list[tuple[list[float], list[int], list[int], float, float]],
) -> None:
    """Each row by its own penalties, bit for bit."""
    rows = [
        Shifted(
            Sampling(
                repetition_penalty=repetition,
                frequency_penalty=frequency,
                presence_penalty=frequency / 3,
                logit_bias={"3": frequency},
                min_tokens=3,
                max_tokens=9,
            ),
            tuple(prompt),
            output,
            frozenset({1}),
        )
        for _, prompt, output, repetition, frequency in cases
    ]
    together = torch.tensor([case[0] for case in cases])
    alone = together.clone()
    shift(together, *rows)
    for place, row in enumerate(rows):
        shift(alone[place : place + 1], row)
    assert torch.equal(together, alone)

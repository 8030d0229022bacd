"""Every setting that the contract allows, on every kind of logits: each row gets its token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.schemas import Sampling
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.sampler import INVALID, sample
from aril.worker.engine.sequence import TokenSequence
from tests.support.records import SAMPLING

VOCABULARIES = (257, 49_152, 128_256)
LARGEST = torch.finfo(torch.float32).max
KINDS = (
    "usual",
    "huge",
    "largest",
    "tiny",
    "equal",
    "zeros",
    "masked",
    "one",
    "nan",
    "inf",
    "none",
)
BROKEN = ("nan", "inf", "none")


def logits_of(kind: str, vocab: int, seed: int) -> torch.Tensor:
    """Make one row, float32 [vocab]."""
    normal = torch.randn(vocab, generator=torch.Generator().manual_seed(seed))
    row = {
        "huge": normal * 1e37,
        "largest": normal.sign() * LARGEST,
        "tiny": normal * 1e-42,
        "equal": torch.full((vocab,), 3.0),
        "zeros": torch.zeros(vocab),
        "one": torch.full((vocab,), -math.inf),
        "none": torch.full((vocab,), -math.inf),
    }.get(kind, normal * 4)
    place = seed % vocab
    if kind == "masked":
        row[normal > 0] = -math.inf
    row[place] = {"nan": math.nan, "inf": math.inf, "none": -math.inf}.get(kind, -2.5)
    return row


def row_of(sampling: Sampling, vocab: int, seed: int) -> TokenSequence:
    """Make a sequence with some history; intake has refused biases of ids that there are not."""
    known = {id_: bias for id_, bias in sampling.logit_bias.items() if int(id_) < vocab}
    sampling = sampling.model_copy(update={"logit_bias": known})
    history = tuple((seed + step * step) % vocab for step in range(12))
    return TokenSequence(
        GenerationRequest(
            key=0,
            prompt_ids=history[:6],
            sampling=sampling,
            seed=sampling.seed or seed,
            adapter=None,
            resume_ids=history[6:],
        )
    )


@settings(max_examples=100)
@given(
    vocab=st.sampled_from(VOCABULARIES),
    cases=st.lists(
        st.tuples(SAMPLING, st.sampled_from(KINDS), st.integers(0, 2**31)), min_size=1, max_size=4
    ),
)
def test_each_row_gets_a_possible_token(vocab: int, cases: list[tuple[Sampling, str, int]]) -> None:
    """A token that the model does not exclude, finite logprobs, what the row gets alone.

    Only a row whose logits are no distribution is INVALID, whatever the others ask for.
    """
    rows = [row_of(sampling, vocab, seed) for sampling, _, seed in cases]
    logits = torch.stack([logits_of(kind, vocab, seed) for _, kind, seed in cases])
    sampled = sample(logits.clone(), rows)
    for i, (sampling, kind, _) in enumerate(cases):
        token = sampled.ids[i]
        assert (token == INVALID) == (kind in BROKEN)
        assert [token] == sample(logits[i : i + 1].clone(), rows[i : i + 1]).ids
        if token == INVALID:
            continue
        assert 0 <= token < vocab
        assert logits[i, token] > -math.inf
        told = sampled.logprobs[i]
        assert (told is None) == (sampling.logprobs is None)
        if told is not None:
            assert all(map(math.isfinite, (told.chosen, *(value for _, value in told.top))))


@pytest.mark.parametrize("temperature", [1e-5, 1e-4, 0.01])
@pytest.mark.parametrize("scale", [100.0, 1e30, 1e38])
def test_a_small_temperature_takes_the_largest_logit(temperature: float, scale: float) -> None:
    """Where the quotient would pass float32's range the answer is the greedy one."""
    torch.manual_seed(4)
    logits = torch.rand(20, 300) * 0.9
    logits[torch.arange(20), torch.arange(20) * 7] = 1.0
    rows = [row_of(Sampling(temperature=temperature), 300, seed) for seed in range(20)]
    assert sample(logits * scale, rows).ids == [place * 7 for place in range(20)]


def test_a_penalty_cannot_make_logits_infinite() -> None:
    """Divided by the least penalty, the largest numbers stop at the end of float32."""
    sampling = Sampling(repetition_penalty=0.1, temperature=0.0)
    logits = torch.tensor([[1.0, LARGEST, -LARGEST, -math.inf, 0.5]])
    sequence = TokenSequence(
        GenerationRequest(key=0, prompt_ids=(1, 2, 3), sampling=sampling, seed=0, adapter=None)
    )
    assert sample(logits, [sequence]).ids == [1]
    assert logits.tolist() == [[1.0, LARGEST, pytest.approx(-LARGEST * 0.1), -math.inf, 0.5]]

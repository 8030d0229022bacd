"""Sampling against transformers' warpers, a slow transcription, and itself in other company."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from aril.schemas import Sampling
from aril.worker.engine import step_settings
from aril.worker.engine.noise import uniform
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.sampler import INVALID, sample
from aril.worker.engine.sequence import TokenSequence

GREEDY = Sampling(temperature=0.0)


def row(
    sampling: Sampling,
    seed: int = 0,
    prompt: tuple[int, ...] = (1,),
    output: tuple[int, ...] = (),
) -> TokenSequence:
    """Build a sequence that is about to sample its next token."""
    return TokenSequence(
        GenerationRequest(
            key=0,
            prompt_ids=prompt,
            sampling=sampling,
            seed=seed,
            adapter=None,
            resume_ids=output,
        )
    )


def intervals(
    logits: list[float], sampling: Sampling, top_p: float
) -> dict[int, tuple[float, float]]:
    """Each token's share of [0, 1), by a plain transcription of the definition in doubles."""
    order = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    weights = [
        math.exp((logits[token] - logits[order[0]]) / sampling.temperature) for token in order
    ]
    keep = sum(weight >= sampling.min_p for weight in weights)
    keep = min(keep, sampling.top_k or keep)
    mass = sum(weights[:keep])
    nucleus, reached = 0, 0.0
    while nucleus < keep and (nucleus == 0 or reached < top_p * mass):
        reached += weights[nucleus]
        nucleus += 1
    shares, low = {}, 0.0
    for token, weight in zip(order[:nucleus], weights, strict=False):
        shares[token] = (low / reached, (low + weight) / reached)
        low += weight
    return shares


@settings(max_examples=300)
@given(
    logits=st.lists(st.integers(-40, 40).map(lambda n: n / 8), min_size=2, max_size=30),
    temperature=st.sampled_from([0.25, 0.7, 1.0, 2.0]),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.05, 1),
    min_p=st.sampled_from([0.0, 0.03, 0.4, 1.0]),
    seed=st.integers(0, 2**63 - 1),
)
def test_equal_to_a_slow_transcription(
    *, logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    """The token is the one whose interval holds the uniform number, for all settings together."""
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    token = sample(torch.tensor([logits]), [row(sampling, seed, output=(0, 1))]).ids[0]
    draw = uniform(seed, 2)
    # Single precision may move a border a little, or a token that lies on it.
    shares = [intervals(logits, sampling, top_p * nudge) for nudge in (1 - 1e-6, 1, 1 + 1e-6)]
    if top_k == 1:
        assert token == logits.index(max(logits))
    else:
        assert any(
            low - 1e-5 <= draw <= high + 1e-5
            for low, high in (share[token] for share in shares if token in share)
        )


@pytest.mark.parametrize(
    ("sampling", "warpers"),
    [
        (Sampling(temperature=0.6), [TemperatureLogitsWarper(0.6)]),
        (Sampling(top_k=3), [TopKLogitsWarper(3)]),
        (Sampling(top_p=0.8), [TopPLogitsWarper(0.8)]),
        (Sampling(min_p=0.15), [MinPLogitsWarper(0.15)]),
        (
            Sampling(temperature=1.5, min_p=0.05, top_k=6, top_p=0.9),
            [
                TemperatureLogitsWarper(1.5),
                MinPLogitsWarper(0.05),
                TopKLogitsWarper(6),
                TopPLogitsWarper(0.9),
            ],
        ),
    ],
    ids=["temperature", "top_k", "top_p", "min_p", "all"],
)
def test_frequencies_are_those_of_transformers(
    sampling: Sampling, warpers: list[LogitsProcessorList]
) -> None:
    """Over 8,000 seeds each token comes as often as transformers' warped distribution says."""
    torch.manual_seed(3)
    logits = torch.randn(12) * 2
    expected = LogitsProcessorList(warpers)(torch.tensor([[0]]), logits[None].clone()).softmax(1)[0]
    draws = 8000
    rows = [row(sampling, seed) for seed in range(draws)]
    ids = sample(logits.expand(draws, -1).contiguous(), rows).ids
    counts = torch.tensor(ids).bincount(minlength=12)
    for count, share in zip(counts.tolist(), expected.tolist(), strict=True):
        sigma = math.sqrt(draws * share * (1 - share))
        assert abs(count - draws * share) <= 4.5 * sigma


@pytest.mark.parametrize("vocab", [5, 71, 4103])
def test_rows_do_not_see_each_other(vocab: int) -> None:
    """Ids and log probabilities are bit-equal alone, in any subset and in any order."""
    generator = torch.Generator().manual_seed(vocab)
    dice = random.Random(vocab)
    logits = torch.randn(24, vocab, generator=generator) * torch.linspace(0.1, 8, 24)[:, None]
    logits = (logits * 4).round() / 4  # ties
    rows = [
        row(
            Sampling(
                temperature=dice.choice([0.0, 0.3, 1.0, 2.0]),
                top_k=dice.choice([0, 0, 1, 2, 80, 4100]),
                top_p=dice.choice([1.0, 1.0, 0.9, 0.2]),
                min_p=dice.choice([0.0, 0.0, 0.001]),
                repetition_penalty=dice.choice([1.0, 1.3]),
                frequency_penalty=dice.choice([0.0, 0.5]),
                logprobs=dice.choice([None, 0, 3]),
            ),
            seed=dice.getrandbits(60),
            output=tuple(dice.randrange(vocab) for _ in range(dice.randrange(9))),
        )
        for _ in range(24)
    ]
    together = sample(logits.clone(), rows)
    for size in (1, 2, 7, 24):
        order = dice.sample(range(24), 24)
        for start in range(0, 24, size):
            some = order[start : start + size]
            got = sample(logits[some], [rows[i] for i in some])
            assert got.ids == [together.ids[i] for i in some]
            assert got.logprobs == [together.logprobs[i] for i in some]


@pytest.mark.parametrize("vocab", [40, 64, 65, 300, 4096, 4097, 9000])
@pytest.mark.parametrize(
    ("sampling", "share"),
    [
        (Sampling(), 1.0),
        (Sampling(top_p=0.5), 0.5),
        (Sampling(min_p=0.9), 1.0),
        (Sampling(min_p=0.9, top_p=0.25), 0.25),
    ],
)
def test_flat_distributions_reach_every_candidate(
    vocab: int, sampling: Sampling, share: float
) -> None:
    """With equal logits the token is floor(uniform * kept), however many must be ordered."""
    rows = [row(sampling, seed) for seed in range(40)]
    ids = sample(torch.zeros(40, vocab), rows).ids
    for seed, token in enumerate(ids):
        assert abs(uniform(seed, 0) * vocab * share - (token + 0.5)) <= 0.5 + 1


@pytest.mark.parametrize("sampling", [Sampling(min_p=0.5), Sampling(top_k=100)])
def test_cuts_behind_the_first_candidates(sampling: Sampling) -> None:
    """What min-p or top-k leave, 100 tokens here, is all that the uniform number ranges over."""
    logits = torch.zeros(60, 300)
    logits[:, 100:] = -1.0
    ids = sample(logits, [row(sampling, seed) for seed in range(60)]).ids
    for seed, token in enumerate(ids):
        assert abs(uniform(seed, 0) * 100 - (token + 0.5)) <= 0.5 + 1e-3


def test_greedy_takes_the_lowest_of_equal_ids() -> None:
    """Temperature 0, a tiny temperature and top_k 1 all take the first of the largest logits."""
    logits = torch.tensor([[0.0, 3.0, 1.0, 3.0]] * 3)
    rows = [row(GREEDY), row(Sampling(temperature=1e-6)), row(Sampling(top_k=1))]
    assert sample(logits, rows).ids == [1, 1, 1]


def test_ties_at_the_top_k_border_go_to_the_lowest_ids() -> None:
    """Exactly k tokens stay, of equal ones those with the lowest ids."""
    rows = [row(Sampling(top_k=3), seed) for seed in range(200)]
    ids = sample(torch.tensor([[1.0, 1.0, 5.0, 1.0, 1.0]]).expand(200, -1).contiguous(), rows).ids
    assert set(ids) == {0, 1, 2}


@pytest.mark.parametrize(("draw", "token"), [(0.0, 0), (0.25, 1), (0.5, 2), (1 - 2**-53, 3)])
def test_intervals_are_half_open(monkeypatch: pytest.MonkeyPatch, draw: float, token: int) -> None:
    """A border belongs to the token behind it, 0 to the first, the largest number to the last."""
    monkeypatch.setattr(step_settings, "uniform", lambda _seed, _index: draw)
    assert sample(torch.zeros(1, 4), [row(Sampling())]).ids == [token]


@pytest.mark.parametrize("top_p", [0.2, 0.35, 0.5, 0.65, 0.8, 0.95])
def test_the_largest_number_stays_within_the_nucleus(
    monkeypatch: pytest.MonkeyPatch, top_p: float
) -> None:
    """Rounding up the product of a number just below 1 and the kept mass picks no token outside."""
    monkeypatch.setattr(step_settings, "uniform", lambda _seed, _index: 1 - 2**-53)
    torch.manual_seed(1)
    logits = torch.randn(200, 20)
    ids = sample(logits.clone(), [row(Sampling(top_p=top_p))] * 200).ids
    for one, token in zip(logits.tolist(), ids, strict=True):
        assert token == list(intervals(one, Sampling(), top_p))[-1]


def test_masked_tokens_are_never_drawn() -> None:
    """Logits of minus infinity have no share and are not among the likely ones."""
    logits = torch.full((300, 90), -math.inf)
    logits[:, 7] = logits[:, 80] = 1.0
    rows = [row(Sampling(logprobs=5), seed) for seed in range(300)]
    sampled = sample(logits, rows)
    assert set(sampled.ids) == {7, 80}
    assert sampled.logprobs[0] is not None
    tokens, values = zip(*sampled.logprobs[0].top, strict=True)
    assert tokens == (7, 80)
    assert values == pytest.approx([-math.log(2)] * 2)


def test_logprobs_are_of_the_models_own_distribution() -> None:
    """Temperature, penalties and top_k do not change what is reported; ties go by id."""
    logits = torch.tensor([[0.5, 2.0, 2.0, -1.0]])
    expected = logits.log_softmax(1)[0].tolist()
    sampling = Sampling(temperature=0.0, repetition_penalty=5.0, top_k=2, logprobs=3)
    sampled = sample(logits, [row(sampling, prompt=(1,), output=(1,))])
    assert sampled.ids == [2]
    assert sampled.logprobs[0] is not None
    assert sampled.logprobs[0].chosen == expected[2]
    assert sampled.logprobs[0].top == ((1, expected[1]), (2, expected[2]), (0, expected[0]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [GREEDY, Sampling(logprobs=2)])
def test_broken_logits_hurt_only_their_own_row(bad: float, sampling: Sampling) -> None:
    """A row with NaN or infinity is INVALID; its neighbours get what they get without it."""
    torch.manual_seed(0)
    logits = torch.randn(3, 20)
    rows = [row(sampling, 1), row(sampling, 2), row(sampling, 3)]
    expected = sample(logits.clone(), rows)
    logits[1, 13] = bad
    got = sample(logits, rows)
    assert got.ids == [expected.ids[0], INVALID, expected.ids[2]]
    assert got.logprobs == [expected.logprobs[0], None, expected.logprobs[2]]


def test_no_rows_are_no_work() -> None:
    """A step that brings prompts on alone samples nothing."""
    assert sample(torch.zeros(0, 5), []) == ([], [], ())


def test_wrong_shapes_are_refused() -> None:
    """Logits that do not belong to the rows raise with the shapes in the message."""
    with pytest.raises(ValueError, match=r"float32 \[1, vocab\], got torch.float32 \(2, 5\)"):
        sample(torch.zeros(2, 5), [row(GREEDY)])
    with pytest.raises(ValueError, match=r"got torch\.float64"):
        sample(torch.zeros(1, 5, dtype=torch.float64), [row(GREEDY)])

"""Rows searched for their borders, and rows sorted on a device, against a plain reference."""

from __future__ import annotations

import random
from typing import Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aril.worker.engine import selection
from aril.worker.engine.inversion import Draws, invert
from aril.worker.engine.masses import whole
from aril.worker.engine.selection import Cut, select

LAST: Final = 1 - 2**-53
CUTS: Final = st.builds(
    Cut,
    min_p=st.sampled_from([0.0, 0.0, 0.001, 0.1, 1.0]) | st.floats(0, 1),
    top_k=st.sampled_from([1, 2, 50, 3000, 10**6, 10**6, 10**6]) | st.integers(1, 6000),
    top_p=st.sampled_from([1.0, 1.0, 0.9, 0.99, 1 - 1e-9, 5e-324])
    | st.floats(0, 1, exclude_min=True),
    uniform=st.sampled_from([0.0, LAST, 1 - 1e-7]) | st.floats(0, 1, exclude_max=True),
)
KINDS: Final = ("normal", "ties", "equal", "masked", "one", "peak", "steps")


def logits_of(kind: str, vocab: int, spread: float, seed: int) -> torch.Tensor:
    """Make one row, float32 [vocab]."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(vocab, generator=generator) * spread
    place = seed % vocab
    if kind == "ties":
        row = (row * 4).round() / 4
    elif kind == "equal":
        row = torch.full((vocab,), 3.0)
    elif kind == "masked":
        row[torch.rand(vocab, generator=generator) < 0.7] = -torch.inf
        row[place] = 0.5
    elif kind == "one":
        row = torch.full((vocab,), -torch.inf)
        row[place] = 0.5
    elif kind == "peak":
        row[place] = 10.0
    elif kind == "steps":  # an evenly spaced sample sees the low ones only
        row[::7] += 5.0
    return row


def scaled_of(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return what is inverted, [vocab]."""
    return (logits - logits.amax()) / torch.tensor(temperature)


def by_sorting(scaled: torch.Tensor, cut: Cut, p: torch.Tensor | None = None) -> int:
    """Return the token by the definition: a stable sort, and whole numbers for masses."""
    p = scaled.softmax(0) if p is None else p
    order = sorted(range(len(p)), key=lambda token: (-float(scaled[token]), token))
    units = [round((1 + float(p[token])) * 2**52) - 2**52 for token in order]
    sums, total = [], 0
    for unit in units:
        total += unit
        sums.append(total / 2**52)
    likely = [float(each) >= cut.min_p * float(p.max()) for each in p]
    left = None
    if cut.min_p > 0:
        kept = sum(unit for unit, token in zip(units, order, strict=True) if likely[token])
        left = kept / 2**52
    if cut.top_k < sum(likely):
        left = sums[cut.top_k - 1]
    mass = 1.0 if left is None else left
    if cut.top_p < 1:
        reached = [each for each in sums if each >= cut.top_p * mass]
        mass = left = reached[0] if reached else sums[-1]
    goal = cut.uniform * mass
    if left is None and goal >= sums[-1]:
        goal = cut.uniform * sums[-1]
    return order[next(place for place, each in enumerate(sums) if each > goal)]


def on_device(scaled: list[torch.Tensor], cuts: list[Cut], size: int) -> list[int]:
    """Invert rows at once, as a device does."""
    columns = zip(*cuts, strict=True)
    told = [torch.tensor([1.0] * len(cuts), dtype=torch.float64)]
    told += [torch.tensor(each, dtype=torch.float64) for each in columns]
    draws = Draws(told[0], told[1], told[2].long(), told[3], told[4])
    return invert(torch.stack(scaled), draws, size).tolist()


@settings(max_examples=80)
@given(
    vocab=st.integers(1, 700) | st.sampled_from([2048, 2049, 4099]),
    kind=st.sampled_from(KINDS),
    spread=st.sampled_from([1e-7, 1e-6, 1e-4, 0.3, 1.0, 3.0, 30.0]),
    temperature=st.sampled_from([1e-5, 0.5, 1.0, 2.0]),
    seed=st.integers(0, 2**31),
    cuts=st.lists(CUTS, min_size=1, max_size=4),
)
def test_both_ways_give_the_token_of_a_plain_sort(
    *, vocab: int, kind: str, spread: float, temperature: float, seed: int, cuts: list[Cut]
) -> None:
    """Exactly, whatever the row and the cuts; and the token is one that can be drawn."""
    scaled = scaled_of(logits_of(kind, vocab, spread, seed), temperature)
    p = scaled.softmax(0)
    cuts = [cut._replace(top_k=min(cut.top_k, vocab)) for cut in cuts]
    expected = [by_sorting(scaled, cut) for cut in cuts]
    assert [select(scaled.numpy(), p.numpy(), cut) for cut in cuts] == expected
    assert on_device([scaled] * len(cuts), cuts, vocab) == expected
    assert all(whole(p.double())[token] > 0 for token in expected)


@pytest.mark.parametrize("vocab", [4_099, 49_152])
def test_long_rows_are_searched_as_they_are_sorted(vocab: int) -> None:
    """Rows long enough to be sampled: flat, peaked, with ties, with what a sample hides."""
    dice = random.Random(vocab)
    scaled, cuts = [], []
    for seed in range(40):
        kind, spread = dice.choice(KINDS), dice.choice([0.0, 1e-6, 1e-3, 0.5, 1.0, 3.0, 8.0])
        row = scaled_of(logits_of(kind, vocab, spread, seed), 1.0)
        for _ in range(3):
            scaled.append(row)
            cuts.append(
                Cut(
                    dice.choice([0.0, 0.0, 0.1, 0.9]),
                    dice.choice([vocab, vocab, 7, 900, vocab // 3]),
                    dice.choice([1.0, 0.5, 0.9, 0.99]),
                    dice.choice([dice.random(), dice.random(), LAST]),
                )
            )
    found = [
        select(row.numpy(), row.softmax(0).numpy(), cut)
        for row, cut in zip(scaled, cuts, strict=True)
    ]
    assert found == on_device(scaled, cuts, vocab)


@pytest.mark.parametrize("size", [5, 64, 299])
def test_fewer_are_ordered_where_top_k_allows_it(size: int) -> None:
    """A device orders as many as the largest top_k keeps, and finds what it finds among all."""
    dice = random.Random(size)
    scaled = [scaled_of(logits_of("ties", 300, 1.0, seed), 1.0) for seed in range(80)]
    cuts = [
        Cut(dice.choice([0.0, 0.05]), dice.randint(1, size), dice.choice([1, 0.8]), dice.random())
        for _ in scaled
    ]
    assert on_device(scaled, cuts, size) == on_device(scaled, cuts, 300)


def test_without_looks_all_tokens_are_put_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looking leads nowhere there is an end to it, and it is right."""
    row = scaled_of(logits_of("normal", 49_152, 0.5, 1), 1.0)
    p = row.softmax(0).numpy()
    cuts = [Cut(0.0, 49_152, top_p, draw) for top_p in (0.9, 1.0) for draw in (0.0, 0.7, LAST)]
    expected = [select(row.numpy(), p, cut) for cut in cuts]
    monkeypatch.setattr(selection, "_LOOKS", 1)
    assert [select(row.numpy(), p, cut) for cut in cuts] == expected


@pytest.mark.parametrize("kind", ["equal", "masked", "normal"])
def test_borders_and_ends(kind: str) -> None:
    """Numbers that fall on a border, and the largest, where rounding leaves less than 1 in all."""
    short = 0
    for seed in range(25):
        scaled = scaled_of(logits_of(kind, 512, 2.0, seed), 1.0)
        p = scaled.softmax(0)
        short += float(whole(p.double()).sum()) < 1
        cuts = [Cut(0.0, 512, 1.0, draw) for draw in (0.0, 0.25, 0.5, 1 - 1e-9, LAST)]
        expected = [by_sorting(scaled, cut) for cut in cuts]
        assert [select(scaled.numpy(), p.numpy(), cut) for cut in cuts] == expected
        assert on_device([scaled] * len(cuts), cuts, 512) == expected
    assert short or kind == "equal"


@pytest.mark.parametrize("spread", [1e-6, 1e-3])
def test_probabilities_may_be_a_little_out_of_order(spread: float) -> None:
    """By some roundings: the order is that of the logits, on both sides of each border."""
    row = scaled_of(logits_of("normal", 8_000, spread, 4), 1.0)
    noise = torch.randn(8_000, generator=torch.Generator().manual_seed(5))
    p = row.softmax(0) * (1 + 2e-7 * noise)
    for draw in range(9):
        cut = Cut(0.0, 8_000, (1.0, 0.9, 0.5)[draw % 3], draw / 9)
        assert select(row.numpy(), p.numpy(), cut) == by_sorting(row, cut, p)


def test_masses_are_whole_and_their_sums_exact() -> None:
    """In any order: sorted up, down, in pieces, and as whole numbers."""
    p = (torch.randn(50_000, generator=torch.Generator().manual_seed(2)) * 6).softmax(0).double()
    masses = whole(p)
    units = (masses * 2**52).long()
    assert torch.equal(units.double() / 2**52, masses)
    assert float((masses - p).abs().max()) <= 2**-53
    exact = int(units.sum()) / 2**52
    ascending = masses.sort().values
    for each in (masses, ascending, ascending.flip(0), masses.view(100, 500).sum(0)):
        assert each.sum().item() == exact
    assert np.cumsum(ascending.numpy())[-1] == exact

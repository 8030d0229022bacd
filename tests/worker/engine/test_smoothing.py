"""What columns are multiplied by: measured on a text by the model itself, the same each time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.worker.engine.config import EngineConfig
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.sample_texts import CALIBRATION, HELD_OUT
from aril.worker.engine.smoothing import column_maxima, smoothing_factors

if TYPE_CHECKING:
    from torch import Tensor

    from aril.worker.engine.model import Backbone

CONFIG = EngineConfig(max_rows=2, max_step_tokens=16, slots=1, max_rank=4, kv_tokens=64)


def test_the_largest_of_each_column(backbone: Backbone) -> None:
    """Over all pieces of the text, of each group's own input; and nothing is left behind."""
    layers = AdapterLayers(backbone, CONFIG)
    firsts = [group.members[0] for group in layers.groups]
    seen: list[Tensor] = []
    watched = firsts[2].register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    found = column_maxima(backbone, firsts, CALIBRATION)
    watched.remove()
    assert len(seen) > 1
    assert torch.equal(found[2], torch.cat(seen).abs().amax(0))
    assert [len(each) for each in found] == [group.in_features for group in layers.groups]
    assert not any(first._forward_pre_hooks for first in firsts)
    again = column_maxima(backbone, firsts, CALIBRATION)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_factors_even_out_both_sides() -> None:
    """With the square root of either's size: rows' columns and the weight's are then alike."""
    rows = 4.0 ** torch.arange(-3.0, 4.0)
    weight = torch.randn(5, 7).sign() * 4.0 ** torch.arange(7.0) / 100
    factors = smoothing_factors(rows, weight)
    left, right = rows * factors, weight.abs().amax(0) / factors
    assert ((left / right).log2().abs() <= 0.25 + 1e-6).all()


def test_a_rounding_apart_the_factors_are_the_same() -> None:
    """Workers whose sums differ in their last bits compute with the same weights."""
    rows, weight = torch.rand(4000) + 0.1, torch.randn(16, 4000)
    one = smoothing_factors(rows, weight)
    assert (one != smoothing_factors(rows * (1 + 1e-6), weight)).float().mean() < 1e-3
    assert torch.equal(one, smoothing_factors(rows, weight))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_where_nothing_is_known_nothing_changes(bad: float) -> None:
    """Numbers that are not finite, columns that are all zero."""
    ones, weight = torch.ones(3), torch.ones(2, 3)
    assert torch.equal(smoothing_factors(torch.tensor([1.0, bad, 2.0]), weight), ones)
    assert torch.equal(smoothing_factors(torch.zeros(3), weight), ones)
    assert torch.equal(smoothing_factors(ones, 0 * weight), ones)
    some = smoothing_factors(torch.tensor([1.0, 0.0, 2.0]), weight)
    assert bool((some.isfinite() & (some > 0) & (some <= 128)).all())


def test_the_texts_have_nothing_in_common() -> None:
    """What is held out has not been seen: no line, and no five words of it."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return {tuple(words[at : at + 5]) for at in range(len(words) - 4)}

    assert len(runs(HELD_OUT)) > 100
    assert not runs(HELD_OUT) & runs(CALIBRATION)

"""Bits of a batch's masks, applied at once, against one look at each token."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import Sampling
from aril.worker.engine.sampler import DEAD, INVALID, sample
from aril.worker.engine.token_masks import TokenMasks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

VOCAB = 131  # of the constraints: no multiple of 32, nor of 8
LOGITS = 127
ENDS = frozenset({2})


class ListedMatcher:
    """Lets through a set of tokens."""

    error = None

    def __init__(self, allowed: Collection[int]) -> None:
        self.allowed = allowed

    def fill(self, mask: NDArray[np.uint32], end_ids: Collection[int]) -> None:
        """Write them; what was there before is garbage."""
        assert end_ids == ENDS
        mask[:] = 0
        for token in self.allowed:
            mask[token >> 5] |= 1 << (token & 31)


class CountedMatcher(ListedMatcher):
    """Counts how often it was asked."""

    fills = 0

    def fill(self, mask: NDArray[np.uint32], end_ids: Collection[int]) -> None:
        """Count."""
        self.fills += 1
        super().fill(mask, end_ids)


class BrokenMatcher(ListedMatcher):
    """Cannot tell."""

    def fill(self, mask: NDArray[np.uint32], end_ids: Collection[int]) -> None:
        """Raise behind the first bits."""
        super().fill(mask, end_ids)
        raise RuntimeError("planted")


@dataclass
class Drawn:
    """What the sampler needs to know of a row."""

    matcher: Any
    sampling: Sampling
    seed: int = 0
    index: int = 0
    prompt_ids: tuple[int, ...] = (1,)
    end_ids: frozenset[int] = ENDS
    output_ids: list[int] = field(default_factory=list)


def apply(masks: TokenMasks, logits: torch.Tensor, rows: Sequence[tuple[int, Drawn]]) -> None:
    """Mask rows at their places, as the sampler does."""
    bits = torch.from_numpy(masks.bits([row for _, row in rows]))
    masks.apply_(logits, torch.tensor([place for place, _ in rows]), bits)


ALLOWED: tuple[Collection[int] | None, ...] = (
    range(0, VOCAB, 3),
    None,
    {0, LOGITS - 1},
    {31, 32, 63, 64},
    None,
)


@pytest.mark.parametrize("rows", [(0, 2, 3), (0, 1, 2, 3, 4)], ids=["all", "some"])
def test_only_what_may_come_is_left(rows: tuple[int, ...]) -> None:
    """Bit by bit; rows without a constraint are as they were."""
    logits = torch.randn(len(rows), LOGITS, generator=torch.Generator().manual_seed(1))
    masks = TokenMasks(len(rows), VOCAB)
    masks._words.fill(0xFFFFFFFF)
    before = logits.clone()
    constrained = [
        (place, Drawn(ListedMatcher(allowed), Sampling()))
        for place, row in enumerate(rows)
        if (allowed := ALLOWED[row]) is not None
    ]
    apply(masks, logits, constrained)
    for place, row in enumerate(rows):
        allowed = ALLOWED[row]
        for token in range(LOGITS):
            free = allowed is None or token in allowed
            assert logits[place, token] == (before[place, token] if free else -math.inf)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.0), Sampling(temperature=2.0)])
def test_rows_with_nothing_left_are_told(sampling: Sampling) -> None:
    """Nothing may come; what may has no logit, or is beyond the logits; other rows are served."""
    logits = torch.zeros(5, LOGITS)
    logits[1, 7] = -math.inf
    logits[3] = math.nan
    matchers = [None, {7}, {LOGITS + 1}, {5}, {5}]
    rows = [
        Drawn(None if allowed is None else ListedMatcher(allowed), sampling) for allowed in matchers
    ]
    found = sample(logits, rows, TokenMasks(5, VOCAB)).ids
    assert found[0] >= 0
    assert found[1:] == [DEAD, DEAD, INVALID, 5]


def test_flat_rows_draw_nothing_that_is_masked() -> None:
    """At the very end of the unit interval too, where sums of two orders may differ."""
    allowed = {*range(0, 5_000, 7)}
    rows = [
        Drawn(ListedMatcher(allowed), Sampling(temperature=1.0), seed=seed) for seed in range(40)
    ]
    logits = torch.zeros(len(rows), 5_000)
    assert {*sample(logits, rows, TokenMasks(len(rows), 5_000)).ids} <= allowed


def test_what_was_begun_is_filled_once() -> None:
    """By the time it is applied; where others are wanted it is filled again, for them."""
    masks = TokenMasks(3, VOCAB)
    for begun, fills in (((0, 1), 1), ((1, 0), 2), ((2,), 2), ((), 1)):
        told = [CountedMatcher({at}) for at in (3, 5)]
        rows = [Drawn(each, Sampling()) for each in (*told, ListedMatcher({7}))]
        masks.begin([rows[at] for at in begun])
        logits = torch.zeros(2, LOGITS)
        apply(masks, logits, [(0, rows[0]), (1, rows[1])])
        assert [row.argmax().item() for row in logits] == [3, 5]
        assert told[0].fills == (fills if 0 in begun else 1)


def test_what_fails_beside_the_model_fails_where_it_is_wanted() -> None:
    """So that it ends its own row; where nobody wants it any more, nothing fails."""
    masks = TokenMasks(1, VOCAB)
    broken, whole = (Drawn(each, Sampling()) for each in (BrokenMatcher(()), ListedMatcher({2})))
    for _ in range(2):
        masks.begin([broken])
        masks.begin([whole])
        apply(masks, torch.zeros(1, LOGITS), [(0, whole)])
        masks.begin([broken])
        with pytest.raises(RuntimeError, match="planted"):
            masks.bits([broken])


def test_constrained_rows_need_masks() -> None:
    """Whoever forgets them is told, and no free answer comes of it."""
    with pytest.raises(ValueError, match="need masks"):
        sample(torch.zeros(1, LOGITS), [Drawn(ListedMatcher({1}), Sampling())])

"""Scratch memory: as much as the largest segment took, lent to one group after another."""

from __future__ import annotations

import numpy as np
import torch

from kernels.sgmv import GroupShape, LoraPair, Scratch, make_plan, make_slot_weights
from kernels.sgmv.packed.scratch import MOST_VIEWS, layout_of

SMALL = layout_of(((0, 2, 0, 5),), 5)
LARGE = layout_of(((0, 3, 0, 4), (3, 4, 4, 9)), 9)


def test_views_lie_in_shared_memory() -> None:
    """Buffers have the layout's shapes, and segments get the same memory one after another."""
    scratch = Scratch()
    large = scratch.buffers(6, LARGE)
    assert large.shrunk.shape == (6, 4)
    assert [part.shape for part in large.columns] == [(6, 3), (6, 1)]
    assert large.delta.shape == (6, 9)
    assert [part.shape for part in large.outputs] == [(6, 4), (6, 5)]
    small = scratch.buffers(2, SMALL)
    assert np.shares_memory(small.delta, large.delta)
    assert scratch.buffers(6, LARGE) is large


def test_outgrown_memory_is_let_go() -> None:
    """No view keeps what was too small for a later segment."""
    scratch = Scratch()
    small = scratch.buffers(1, SMALL)
    scratch.buffers(100, SMALL)
    again = scratch.buffers(1, SMALL)
    assert again is not small
    assert not np.shares_memory(again.delta, small.delta)


def test_views_are_not_kept_without_end() -> None:
    """Ever new numbers of rows don't fill the memory with views."""
    scratch = Scratch()
    for rows in range(2 * MOST_VIEWS, 0, -1):
        scratch.buffers(rows, SMALL)
        assert len(scratch._views) <= MOST_VIEWS


def test_layers_share_a_layout() -> None:
    """The same places are one object; other places are another."""
    assert layout_of(((0, 2, 0, 5),), 5) is SMALL
    assert layout_of(((0, 2, 0, 5),), 6) is not SMALL


def test_groups_that_take_turns_share_their_scratch() -> None:
    """Two groups of other shapes, one scratch: each call is that of a group with its own."""
    shared = Scratch()
    generator = torch.Generator().manual_seed(0)
    plan = make_plan(torch.zeros(3, dtype=torch.int32), slots=1)
    for width in (4, 9, 2):
        shape = GroupShape(6, (width,), max_rank=3)
        pair = LoraPair(
            torch.randn(3, 6, generator=generator), torch.randn(width, 3, generator=generator), 2.0
        )
        x, start = (torch.randn(3, size, generator=generator) for size in (6, width))
        results = []
        for scratch in (shared, None):
            weights = make_slot_weights(shape, 1, scratch=scratch)
            weights.load(0, [pair])
            y = start.clone()
            weights.add_(y, x, plan)
            results.append(y)
        assert torch.equal(*results)

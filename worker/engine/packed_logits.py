"""The logits of whole sequences, computed on packed rows: what the probes at start compare."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

import torch

from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.packing import PackedRow, pack

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.worker.engine.config import Backend
    from aril.worker.engine.model import Backbone

_BLOCK = 4  # small, so that sequences span several blocks


def probe_sequences(lengths: Sequence[int], vocab_size: int) -> list[list[int]]:
    """Token ids spread over the vocabulary, other ones in each sequence."""
    return [
        [(7919 * (at + 31 * row) + 13) % vocab_size for at in range(length)]
        for row, length in enumerate(lengths)
    ]


def packed_logits(
    backbone: Backbone,
    steps: Sequence[Sequence[Sequence[int]]],
    backend: Backend,
    *,
    invariant: bool = False,
) -> list[Tensor]:
    """Return the logits [length, vocab] of each sequence, over a cache of their own.

    A step tells how much of each sequence is known by then, the last one all of it; the tokens that
    are new to a step are computed in one pass.
    """
    whole = steps[-1]
    needed = [-(-len(ids) // _BLOCK) for ids in whole]
    cache = KVCache(
        backbone.layouts,
        blocks=sum(needed),
        block_size=_BLOCK,
        dtype=backbone.dtype,
        device=backbone.device,
    )
    blocks = [  # falling, so that nobody's are in order
        list(range(end - 1, end - count - 1, -1))
        for end, count in zip(accumulate(needed), needed, strict=True)
    ]
    known = [0] * len(whole)
    parts: list[list[Tensor]] = [[] for _ in whole]
    for step in steps:
        owners = [owner for owner, ids in enumerate(step) if len(ids) > known[owner]]
        if not owners:
            continue
        rows = [
            PackedRow(
                step[owner][known[owner] :], known[owner], blocks[owner], length=len(whole[owner])
            )
            for owner in owners
        ]
        packed = pack(rows, cache, backend, invariant=invariant)
        everywhere = torch.arange(len(packed.input_ids), device=backbone.device)
        logits = backbone.forward(
            packed.input_ids, packed.position_ids, everywhere, packed.attention, packed.lengths
        )
        for owner, part in zip(owners, logits.split([len(row.ids) for row in rows]), strict=True):
            parts[owner].append(part)
            known[owner] = len(step[owner])
    return [torch.cat(part) for part in parts]

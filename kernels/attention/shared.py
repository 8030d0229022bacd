"""Which of a step's queries begin with the same pages: many jobs on one system prompt."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

# Fewer queries, or fewer tokens, gain nothing: each reads the pages again, out of the cache.
QUERIES = 4
TOKENS = 64


class Shared(NamedTuple):
    """A beginning and who has it."""

    pages: Tensor  # int32, contiguous
    tokens: int  # of whole pages, that all of them see
    places: Tensor  # int64: of the queries


def find_shared(
    block_table: Tensor, seqs: Sequence[int], ends: Sequence[int], page: int
) -> Iterator[Shared]:
    """Group queries by their first page, each group by all the pages that it has in common.

    `block_table` int32 [sequences, pages]; of each query its sequence, and the position behind the
    last key that it sees. A key is left to each of them.
    """
    if len(seqs) < QUERIES:
        return
    groups = defaultdict(list)
    first_pages = block_table[:, 0].tolist()
    for place, seq in enumerate(seqs):
        groups[first_pages[seq]].append(place)
    for places in groups.values():
        most = (min(ends[place] for place in places) - 1) // page
        if len(places) < QUERIES or most * page < TOKENS:
            continue
        table = block_table[[seqs[place] for place in places], :most]
        common = int((table == table[:1]).all(0).cumprod(0).sum())
        if common * page >= TOKENS:
            yield Shared(table[0, :common].contiguous(), common * page, torch.tensor(places))

"""Which queries begin with the same pages, against looking at each pair."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from aril.kernels.attention.shared import QUERIES, TOKENS, find_shared

PAGE = 16
WIDTH = 8


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 1), min_size=WIDTH, max_size=WIDTH),
            st.integers(1, WIDTH * PAGE),
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_groups_have_their_pages_in_common(
    sequences: list[tuple[list[int], int]], queries: int
) -> None:
    """All of them, none that could be longer, each query in one group at most, none left out."""
    # A page of its own wherever a sequence has left another.
    numbers: dict[tuple[int, ...], int] = {}
    table = torch.tensor(
        [
            [numbers.setdefault(tuple(way[: at + 1]), len(numbers)) for at in range(WIDTH)]
            for way, _ in sequences
        ],
        dtype=torch.int32,
    )
    seqs = [seq for seq in range(len(sequences)) for _ in range(queries)]
    ends = [sequences[seq][1] for seq in seqs]
    found = list(find_shared(table, seqs, ends, PAGE))
    grouped = [place for each in found for place in each.places.tolist()]
    assert len(grouped) == len(set(grouped))
    for each in found:
        places = each.places.tolist()
        rows = [table[seqs[place]].tolist() for place in places]
        common = len(each.pages)
        assert each.tokens == common * PAGE >= TOKENS
        assert len(places) >= QUERIES
        assert all(row[:common] == each.pages.tolist() for row in rows)
        shortest = min(ends[place] for place in places)
        assert each.tokens < shortest, "a key is left to everybody"
        longer = (common + 1) * PAGE < shortest
        assert not longer or len({row[common] for row in rows}) > 1
    for first in {int(row[0]) for row in table}:
        group = [place for place, seq in enumerate(seqs) if int(table[seq, 0]) == first]
        most = (min(ends[place] for place in group) - 1) // PAGE
        rows = [table[seqs[place]].tolist()[:most] for place in group]
        alike = [len({row[: at + 1][-1] for row in rows}) == 1 for at in range(most)]
        common = alike.index(False) if False in alike else most
        wanted = len(group) >= QUERIES and common * PAGE >= TOKENS
        assert wanted == (group[0] in grouped)

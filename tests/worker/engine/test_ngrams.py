"""The index of pairs against looking through all tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.ngrams import LONGEST, LOOKS, NgramIndex

IDS = st.lists(st.integers(0, 2), max_size=60)


def scanned(ids: list[int], tail: list[int]) -> list[tuple[int, int]]:
    """Look at every place, the latest first."""
    found = []
    for place in range(len(ids) - 1, 1, -1):
        same = 0
        while same < min(LONGEST, place, len(tail)) and ids[place - 1 - same] == tail[-1 - same]:
            same += 1
        if same > 1:
            found.append((same, ids[place]))
    return found[:LOOKS]


@given(ids=IDS, cuts=st.lists(st.integers(0, 60), max_size=3), other=IDS)
def test_followers_are_those_of_a_look_through_all_tokens(
    ids: list[int], cuts: list[int], other: list[int]
) -> None:
    """However the tokens were taken in; of the index's own last tokens and of any others."""
    index = NgramIndex()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(ids)], strict=True):
        index.extend(ids[start:stop])
        known = ids[: min(stop, len(ids))]
        assert len(index) == len(known)
        for tail in (known[-LONGEST:], other):
            assert index.followers(tail) == scanned(known, tail)


def test_the_latest_tokens_are_kept_as_they_came() -> None:
    """Fewer where there are no more."""
    index = NgramIndex()
    index.extend([7, 1, 2])
    assert index.latest(2) == [1, 2]
    assert index.latest(9) == [7, 1, 2]
    assert NgramIndex().latest(3) == []

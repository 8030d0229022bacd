"""The index of pairs against looking through all tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.ngrams import LONGEST, LOOKS, NgramIndex

IDS = st.lists(st.integers(0, 2), max_size=60)


def scanned(ids: list[int], most: int) -> list[int]:
    """Look at every earlier place, latest first, and take the longest match."""
    found, length, looked = 0, 1, 0
    for place in range(len(ids) - 1, 1, -1):
        if ids[place - 2 : place] != ids[-2:]:
            continue
        looked += 1
        if looked > LOOKS:
            break
        same = 2
        while same < min(LONGEST, place) and ids[place - same - 1] == ids[-same - 1]:
            same += 1
        if same > length:
            found, length = place, same
    if not found:
        return []
    going_on = list(ids)
    for at in range(most):
        going_on.append(going_on[found + at])
    return going_on[len(ids) :]


@given(ids=IDS, cuts=st.lists(st.integers(0, 60), max_size=3), most=st.integers(1, 9))
def test_what_followed_the_longest_match_is_found(
    ids: list[int], cuts: list[int], most: int
) -> None:
    """However the tokens were taken in, the guess is that of a look through all of them."""
    index = NgramIndex()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(ids)], strict=True):
        index.extend(ids[start:stop])
        known = ids[: min(stop, len(ids))]
        assert len(index) == len(known)
        assert index.following(most) == scanned(known, most)


def test_the_longest_match_goes_before_the_latest() -> None:
    """After 1 2 3 came 4, after a later 2 3 came 5."""
    index = NgramIndex()
    index.extend([1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3])
    assert index.following(2) == [4, 9]


def test_a_repetition_goes_on() -> None:
    """The guess reaches past the end of what is known, along itself."""
    index = NgramIndex()
    index.extend([7, 1, 2, 3, 1, 2, 3, 1])
    assert index.following(7) == [2, 3, 1, 2, 3, 1, 2]
    assert NgramIndex().following(3) == []

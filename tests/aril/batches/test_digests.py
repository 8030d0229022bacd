"""The compact set is a set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aril.batches.digests import BYTES, FIRST_SLOTS, FULLEST, Digests, digest_of


@given(st.lists(st.integers(1, 2**64 - 1) | st.integers(1, 40).map(lambda at: at << 10)))
def test_it_is_a_set(members: list[int]) -> None:
    """Also where members meet in one slot."""
    digests, plain = Digests(), set()
    for each in members:
        assert digests.add(each) == (each not in plain)
        plain.add(each)
    assert len(digests) == len(plain)
    assert all(each in digests for each in plain)
    assert all((each + 1 in digests) == (each + 1 in plain) for each in plain if each + 1 < 2**64)


def test_it_grows_and_stays_small() -> None:
    """Many times its first size, in at most 23 bytes each once it has grown."""
    digests = Digests()
    count = 20 * FIRST_SLOTS
    assert all(digests.add(digest_of(str(each).encode())) for each in range(count))
    assert all(digest_of(str(each).encode()) in digests for each in range(count))
    assert not any(digest_of(str(each).encode()) in digests for each in range(count, 2 * count))
    assert digests.bytes <= count * BYTES * 2 / FULLEST

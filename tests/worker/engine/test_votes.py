"""Votes on the next token, and what is known of how sure they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.ngrams import LONGEST, NgramIndex
from aril.worker.engine.votes import FIRST_RATES, likeliest

IDS = st.lists(st.integers(0, 3), max_size=50)


def index_of(*ids: int) -> NgramIndex:
    """Make an index of tokens."""
    index = NgramIndex()
    index.extend(ids)
    return index


def rate(tail: list[int], own: NgramIndex, earlier: NgramIndex | None = None) -> float:
    """Return how likely the token is at first that is voted for."""
    found = likeliest(tail, own, NgramIndex() if earlier is None else earlier)
    assert found is not None
    return FIRST_RATES[found[1]]


@given(own=IDS, earlier=IDS, tail=IDS)
def test_the_token_with_the_most_votes_is_guessed(
    own: list[int], earlier: list[int], tail: list[int]
) -> None:
    """Each place counts by the length of its match, wherever it is; evidence is one of those."""
    indexes = index_of(*own), index_of(*earlier)
    votes = dict.fromkeys(range(4), 0)
    for index in indexes:
        for length, token in index.followers(tail):
            votes[token] += 4**length
    found = likeliest(tail, *indexes)
    if found is None:
        assert not any(votes.values())
    else:
        assert votes[found[0]] == max(votes.values()) > 0
        assert 0 <= found[1] < len(FIRST_RATES)


def test_the_longest_match_goes_before_the_latest() -> None:
    """After 1 2 3 came 4, after a later 2 3 came 5."""
    own = index_of(1, 2, 3, 4, 9, 2, 3, 5)
    assert likeliest([1, 2, 3], own, NgramIndex())[0] == 4  # type: ignore[index]
    assert likeliest([8, 2, 3], own, NgramIndex())[0] == 5  # type: ignore[index]


def test_own_tokens_go_before_earlier_answers() -> None:
    """Of matches of one length; a longer one of the earlier answers goes before both."""
    own, earlier = index_of(1, 2, 7), index_of(6, 1, 2, 8)
    assert likeliest([1, 2], own, earlier)[0] == 7  # type: ignore[index]
    assert likeliest([6, 1, 2], own, earlier)[0] == 8  # type: ignore[index]


def test_a_vote_is_the_surer_the_more_places_agree() -> None:
    """And the less sure the more of them say otherwise; a pair alone says least."""
    once, often = [1, 2, 3, 4], [1, 2, 3, 4] * 4
    split = [*once, *[1, 2, 3, 5] * 2]
    tail = [1, 2, 3]
    assert rate(tail, index_of(*split)) < rate(tail, index_of(*once))
    assert rate(tail, index_of(*once)) < rate(tail, index_of(*often))
    assert rate([9, 2, 3], index_of(*once)) < rate(tail, index_of(*once))


def test_evidence_tells_whose_match_it_was() -> None:
    """The same tokens, once as the sequence's own and once as earlier answers'."""
    known, nothing, tail = index_of(*range(LONGEST), 9), NgramIndex(), [*range(LONGEST)]
    own, earlier = likeliest(tail, known, nothing), likeliest(tail, nothing, known)
    assert own is not None
    assert earlier is not None
    assert own[0] == earlier[0] == 9
    assert own[1] != earlier[1]
    assert FIRST_RATES[own[1]] == FIRST_RATES[earlier[1]]

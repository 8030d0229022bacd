"""What is remembered of reply topics, whatever tenants come and are made up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.replies.known_topics import MISSING_SECONDS, KnownTopics

if TYPE_CHECKING:
    import pytest


def test_a_topic_that_was_found_stays_known() -> None:
    """With its partitions; of others nothing is known."""
    topics = KnownTopics()
    topics.found("replies.acme", 3)
    assert topics.partitions("replies.acme") == 3
    assert topics.partitions("replies.zeta") is None
    assert not topics.is_missing("replies.zeta", 0.0)


def test_a_topic_that_was_not_there_is_missing_for_a_moment() -> None:
    """Or until it was created."""
    topics = KnownTopics()
    topics.not_found("replies.acme", 10.0)
    assert topics.is_missing("replies.acme", 10.0 + MISSING_SECONDS / 2)
    assert not topics.is_missing("replies.acme", 10.0 + MISSING_SECONDS)
    topics.look_again("replies.acme")
    assert not topics.is_missing("replies.acme", 10.0)


def test_topics_of_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the older half is asked for again, should it be used again."""
    monkeypatch.setattr("aril.worker.replies.known_topics.KNOWN", 4)
    topics = KnownTopics()
    most = 0
    for number in range(9):
        topics.found(f"replies.t{number}", 1)
        most = max(most, len(topics.in_use()))
    assert most == 4
    assert topics.in_use() == ["replies.t6", "replies.t7", "replies.t8"]
    assert topics.partitions("replies.t0") is None


def test_a_flood_of_topics_that_are_missing_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded by a number of names, whatever tenants are made up."""
    monkeypatch.setattr("aril.worker.replies.known_topics.MISSING", 3)
    topics = KnownTopics()
    names = [f"replies.t{number}" for number in range(5)]
    for name in names:
        topics.not_found(name, 0.0)
    assert [topics.is_missing(name, 0.0) for name in names] == [True] * 3 + [False] * 2
    later = MISSING_SECONDS
    topics.not_found("replies.t9", later)
    assert topics.is_missing("replies.t9", later)

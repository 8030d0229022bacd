"""What brokers are told to match is what the classic protocol matches."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from aril.worker.topics.subscription import broker_pattern, topic_pattern

NAMES = st.text("abdlq09-", max_size=8)


@given(st.sampled_from(["jobs.*", "j*", "*"]), NAMES, NAMES)
@example("jobs.*", "dlq", "dlq")
@example("jobs.*", "dlq", "dlq-")
@example("jobs.*", "a" * 63, "a" * 63)
@example("jobs.*", "a" * 62, "a" * 63)
@example("jobs.*", "dlq", "a" * 64)
@example("jobs.*", "dlq", "-")
def test_brokers_match_the_same_topics(jobs: str, dlq: str, name: str) -> None:
    """Without looking ahead, which RE2 cannot."""
    stem = jobs.removesuffix("*")
    ours, brokers = topic_pattern(jobs, stem + dlq), broker_pattern(jobs, stem + dlq)
    assert ours is not None
    assert brokers is not None
    assert "(?!" not in brokers
    topic = stem + name
    # RE2 matches the whole of a name; a name has no line's end.
    assert (re.fullmatch(brokers, topic) is None) == (ours.match(topic) is None)


def test_dead_letters_elsewhere_are_not_spelled_out() -> None:
    """One topic is no pattern; a name that no tenant can have needs no exception."""
    assert broker_pattern("jobs", "jobs.dlq") is None
    assert broker_pattern("jobs.*", "other") == r"^jobs\.[a-z0-9][a-z0-9-]{0,62}$"

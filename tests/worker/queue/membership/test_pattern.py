"""What brokers are told to match is what the classic protocol matches, and the dead letters."""

from __future__ import annotations

import re

from hypothesis import example, given
from hypothesis import strategies as st

from aril.worker.topics.subscription import broker_pattern, topic_pattern


@given(st.sampled_from(["jobs.*", "my-jobs_1.*", "*"]), st.text("ab09-._", max_size=8))
@example("jobs.*", "dlq")
@example("jobs.*", "a" * 63)
@example("jobs.*", "a" * 64)
def test_brokers_match_the_same_topics(jobs: str, name: str) -> None:
    """Without looking ahead, which RE2 cannot; a name has no line's end."""
    topic = jobs.removesuffix("*") + name
    ours, brokers = topic_pattern(jobs, "elsewhere"), broker_pattern(jobs)
    assert ours is not None
    assert brokers is not None
    assert (re.fullmatch(brokers, topic) is None) == (ours.match(topic) is None)


def test_one_topic_is_no_pattern() -> None:
    """It is named; and nothing but dots is escaped, which is all that librdkafka lets be."""
    assert broker_pattern("jobs") is None
    assert broker_pattern("my-jobs.*") == r"^my-jobs\.[a-z0-9][a-z0-9-]{0,62}$"

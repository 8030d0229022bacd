"""Which topics a worker reads jobs from."""

from __future__ import annotations

import pytest

from aril.worker.topics.subscription import topic_pattern


@pytest.mark.parametrize(
    ("topic", "read"),
    [
        ("jobs.acme", True),
        ("jobs.a-1", True),
        ("jobs.dlq", False),
        ("jobs.", False),
        ("jobs.Acme", False),
        ("jobs.a.b", False),
        ("xjobs.acme", False),
        ("jobsxacme", False),
    ],
)
def test_a_pattern_reads_tenants_topics_and_never_the_dead_letters(topic: str, read: bool) -> None:
    """One topic a tenant: the name must be a tenant's, and the dead letters are none."""
    pattern = topic_pattern("jobs.*", "jobs.dlq")
    assert pattern is not None
    assert bool(pattern.match(topic)) is read
    assert topic_pattern("jobs", "jobs.dlq") is None

"""Tests of what holds by either protocol of the group: run by each, the second time slowly.

A test with the mark needs the fixture `group_protocol`, itself or through what it uses (`site`,
`joins`). Those without it run by the classic one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.brokers import Kafka

by_either_protocol = pytest.mark.parametrize(
    "group_protocol", ["classic", pytest.param("consumer", marks=pytest.mark.slow)]
)


def require_protocol(kafka: Kafka, protocol: str) -> None:
    """Skip where the broker has no such groups."""
    if protocol == "consumer" and kafka.kind == "embedded":
        pytest.skip("the embedded broker has no KIP-848")

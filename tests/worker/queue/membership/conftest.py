"""Members of a group of KIP-848, on a broker that has it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.members import Member

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.brokers import Kafka


@pytest.fixture
def member(kafka: Kafka, topic: str) -> Callable[[], Member]:
    """Give what makes a member by the protocol `consumer`."""
    if kafka.kind == "embedded":
        pytest.skip("the embedded broker has no KIP-848")
    return partial(Member, kafka, topic, group_protocol="consumer")

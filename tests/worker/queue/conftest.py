"""Members of a group on a topic of their own, by the protocol that a test is run by."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.support.group_protocols import require_protocol
from tests.support.members import Member

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.brokers import Kafka


@pytest.fixture
def joins(kafka: Kafka, topic: str, group_protocol: str) -> Callable[..., Member]:
    """Give what makes a member."""
    require_protocol(kafka, group_protocol)
    return partial(Member, kafka, topic, group_protocol=group_protocol)

"""What the tests of fetching share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.members import new_topic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.brokers import Kafka


@pytest.fixture
async def topic(kafka: Kafka) -> AsyncIterator[str]:
    """Make a jobs topic of its own for each test."""
    async with new_topic(kafka) as name:
        yield name

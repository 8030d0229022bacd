"""Members of a group of KIP-848, on a broker that has it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.members import Member


@pytest.fixture
def group_protocol() -> str:
    """How these are in their group."""
    return "consumer"


@pytest.fixture
def member(joins: Callable[..., Member]) -> Callable[..., Member]:
    """Give what makes a member by the protocol `consumer`."""
    return joins

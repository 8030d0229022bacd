"""A partition of a topic, and a record as it is read from one."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Fetched(NamedTuple):
    """One record of a log, as far as its reader looks at it."""

    place: Place
    offset: int
    key: bytes | None
    value: bytes | None

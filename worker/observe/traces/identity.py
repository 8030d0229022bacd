"""Ids of traces and spans that any owner of a job can work out. Pure.

Nothing of a trace is written to the replies. So that a worker which takes a job over goes on with
the same trace, and can name the span of the one before it, both ids follow from what each of them
knows: where the job's record stands, and who wrote under which generation.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

_TRACE_BYTES: Final = 16
_SPAN_BYTES: Final = 8


class Place(NamedTuple):
    """Where a record stands, and since when: two clusters may have equal offsets."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


class Owner(NamedTuple):
    """A worker, in one generation of its group: as such it owns a job once at most."""

    worker: str
    generation: int


def trace_id(place: Place, digest: bytes) -> int:
    """Return the trace of a job that came without one; `digest` is of what it asks."""
    return _number(_TRACE_BYTES, b"trace", place, digest.hex())


def span_id(place: Place, owner: Owner) -> int:
    """Return the span that stands for all that an owner did for a job."""
    return _number(_SPAN_BYTES, b"span", place, *owner)


def _number(size: int, person: bytes, *parts: object) -> int:
    """Return a number of so many bytes that looks drawn, and is not 0: that is no id."""
    drawn = hashlib.blake2b(repr(parts).encode(), digest_size=size, person=person).digest()
    return int.from_bytes(drawn) or 1

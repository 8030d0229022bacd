"""A record in memory: what it counts for, and what is not kept of it."""

from __future__ import annotations

import pytest

from aril.schemas.limits import HEADER_BYTES, MAX_HEADERS_BYTES, MAX_KEY_BYTES
from aril.worker.job import Record
from aril.worker.replies.dead_letters import DeadLetter
from aril.worker.replies.pending_bytes import PendingBytes
from tests.support.entries import JOBS, entry_of


def record(*, key: int = 0, value: int = 0, headers: tuple[int, ...] = ()) -> Record:
    """Return a record whose parts have these many bytes."""
    made = [("x" * 4, b"h" * (size - 4)) for size in headers]
    return Record(JOBS, 0, 0, b"k" * key, b"v" * value, made)


def test_key_and_headers_count_as_the_value_does() -> None:
    """Back-pressure counts bytes, of a waiting job and of what waits for a broker."""
    large = record(key=900_000, value=100, headers=(900_000,))
    entry = entry_of("x")
    entry.record = large
    pending = PendingBytes(1 << 30)
    with pending.held(large):
        assert min(entry.size, pending.bytes) >= 1_800_100
    assert pending.bytes == 0


def test_many_small_headers_are_not_free() -> None:
    """Each has objects in memory, and counts of the limit, though it may be empty."""
    empty = Record(JOBS, 0, 0, None, None, [("", None)] * 1_000)
    assert empty.headers_bytes == 1_000 * HEADER_BYTES > MAX_HEADERS_BYTES
    assert empty.size > 1_000 * 150


def test_what_is_within_the_limits_is_kept_whole() -> None:
    """At the limit nothing is left out."""
    most = record(key=MAX_KEY_BYTES, value=1, headers=(MAX_HEADERS_BYTES - HEADER_BYTES,))
    assert most.lean() is most


@pytest.mark.parametrize(
    ("key", "headers", "left_out"),
    [
        (MAX_KEY_BYTES + 7, (10,), 7),
        (3, (MAX_HEADERS_BYTES,), MAX_HEADERS_BYTES + HEADER_BYTES),
        (MAX_KEY_BYTES + 7, (20_000,), 20_000 + HEADER_BYTES + 7),
    ],
)
def test_a_dead_letter_says_how_much_was_left_out(
    key: int, headers: tuple[int, ...], left_out: int
) -> None:
    """A key's end and all headers, each only where it is over its limit; never the value."""
    lean = record(key=key, value=9, headers=headers).lean()
    assert lean.left_out == left_out
    assert lean.value == b"v" * 9
    letter = DeadLetter.of(lean, "reason", "code", "message")
    told = dict(letter.headers)
    assert told["aril-left-out"] == str(left_out).encode()
    assert told["aril-key"] == b"k" * min(key, MAX_KEY_BYTES)
    assert ("xxxx" in told) == (headers == (10,))

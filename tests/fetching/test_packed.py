"""Packed records: unpacked as they were, and never into more memory than is allowed."""

from __future__ import annotations

import gzip
import tracemalloc
from typing import TYPE_CHECKING

import cramjam
import pytest
from aiokafka.codec import lz4_encode, snappy_encode, zstd_encode

from aril.fetching.packed import MAX_UNPACKED_BYTES, TooLargeError, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

PACK: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "gzip": (1, lambda data: gzip.compress(data, 1)),
    "gzip in two members": (1, lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:])),
    "snappy": (2, snappy_encode),
    "snappy without blocks": (2, lambda data: bytes(snappy_encode(data, xerial_compatible=False))),
    "lz4": (3, lz4_encode),
    "zstd": (4, zstd_encode),
}
EACH = pytest.mark.parametrize("name", PACK)


@EACH
@pytest.mark.parametrize("size", [1, 70_000, 3_000_000, MAX_UNPACKED_BYTES])
def test_it_comes_out_as_it_went_in(name: str, size: int) -> None:
    """Also where it is packed a thousand to one, up to the very last byte that is allowed."""
    codec, pack = PACK[name]
    data = b"x" * size
    assert unpack(codec, pack(data)) == data


@EACH
def test_what_is_larger_is_refused_before_it_is_in_memory(name: str) -> None:
    """Four times what is allowed never stands in memory; pins how cramjam says so, too."""
    codec, pack = PACK[name]
    packed = pack(bytes(4 * MAX_UNPACKED_BYTES))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            unpack(codec, packed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * MAX_UNPACKED_BYTES + len(packed)


def test_a_length_that_is_only_said_takes_no_memory() -> None:
    """Snappy begins with how much it holds: four gigabytes are not believed."""
    with pytest.raises(TooLargeError):
        unpack(2, b"\xff\xff\xff\xff\x0f" + b"x" * 20)


@pytest.mark.parametrize("codec", [1, 2, 3, 4])
@pytest.mark.parametrize("packed", [b"?" * 3, b"?" * 40])
def test_what_is_not_packed_is_an_error_of_its_own(codec: int, packed: bytes) -> None:
    """It is broken, which is not to say that it is too large."""
    with pytest.raises((OSError, EOFError, cramjam.DecompressionError)):
        unpack(codec, packed)


def test_a_block_that_ends_before_it_begins_is_an_error() -> None:
    """Nobody goes back to what was read, again and again."""
    packed = snappy_encode(b"x")[:16] + (-4).to_bytes(4, signed=True) + b"rest"
    with pytest.raises(ValueError, match="negative"):
        unpack(2, packed)

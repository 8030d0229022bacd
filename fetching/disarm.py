"""Keeps aiokafka from unpacking a batch that would take too much memory. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fetching.layout import (
    ATTRIBUTES_LOW,
    CODEC_BITS,
    CRC_AT,
    HEADER_BYTES,
    MAGIC,
    START,
    size_of,
)
from fetching.packed import TooLargeError, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator


def has_packed(raw: bytes) -> bool:
    """Whether `disarmed` would have to unpack anything. Looks at headers only."""
    return any(_codec(raw, at) for at, _ in _batches(raw))


def disarmed(raw: bytes) -> bytes:
    """Return fetched batches with a wrong checksum on each that would unpack to too much.

    So aiokafka, which unpacks whatever there is, gives up on such a batch before it does. Older
    formats than version 2 are left as they are: brokers have stored none since Kafka 3.0.
    """
    out = None
    for at, size in _batches(raw):
        if _is_bomb(_codec(raw, at), raw[at + HEADER_BYTES : at + size]):
            out = bytearray(raw) if out is None else out
            out[at + CRC_AT] ^= 0xFF
    return raw if out is None else bytes(out)


def _batches(raw: bytes) -> Iterator[tuple[int, int]]:
    """Return where each whole batch begins, and its size."""
    at = 0
    while (size := size_of(raw[at : at + START.size])) is not None and at + size <= len(raw):
        yield at, size
        at += size


def _codec(raw: bytes, at: int) -> int:
    """Return by what a batch of version 2 is packed, 0 for any other."""
    if len(raw) < at + HEADER_BYTES or START.unpack_from(raw, at)[3] != MAGIC:
        return 0
    return raw[at + ATTRIBUTES_LOW] & CODEC_BITS


def _is_bomb(codec: int, packed: bytes) -> bool:
    if codec == 0:
        return False
    try:
        unpack(codec, packed)
    except TooLargeError:
        return True
    except Exception:  # noqa: BLE001 - each codec raises what it likes; aiokafka will find it too
        return False
    return False

"""Keeps aiokafka from unpacking a batch that would take too much memory. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aril.fetching.layout import (
    ATTRIBUTES_LOW,
    CODEC_BITS,
    CRC_AT,
    HEADER_BYTES,
    MAGIC,
    START,
    size_of,
)
from aril.fetching.packed import TooLargeError, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Topic = tuple[str, list[tuple[Any, ...]]]
    """A topic's name and its partitions, each with its bytes at the end, as in a FetchResponse."""

MAX_FETCHED_BYTES: Final = 64 << 20
"""What the packed batches of one fetch may unpack to together."""


def has_packed(raw: bytes) -> bool:
    """Whether `disarmed` would have to unpack anything. Looks at headers only."""
    return any(_codec(raw, at) for at, _ in _batches(raw))


def disarmed(topics: Sequence[Topic]) -> list[Topic]:
    """Return what a fetch has brought, by topics, so that little is unpacked of it. Takes a while.

    A batch that would unpack to too much gets a wrong checksum: aiokafka, which unpacks whatever
    there is, gives up on it before it does. Where all together would, a partition's later batches
    are cut off and so fetched again; its first one stays, or nothing would ever come of it. Older
    formats than version 2 are left as they are: brokers have stored none since Kafka 3.0.
    """
    room = MAX_FETCHED_BYTES
    found = []
    for topic, partitions in topics:
        kept = []
        for *rest, raw in partitions:
            fewer, used = _disarmed(raw, room) if raw else (raw, 0)
            room -= used
            kept.append((*rest, fewer))
        found.append((topic, kept))
    return found


def _disarmed(raw: bytes, room: int) -> tuple[bytes, int]:
    out, used = None, 0
    for at, size in _batches(raw):
        unpacked = _unpacked_size(_codec(raw, at), raw[at + HEADER_BYTES : at + size])
        if unpacked is None:
            out = bytearray(raw) if out is None else out
            out[at + CRC_AT] ^= 0xFF
            continue
        used += unpacked
        if unpacked and used > room and at:
            return bytes((raw if out is None else out)[:at]), used - unpacked
    return raw if out is None else bytes(out), used


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


def _unpacked_size(codec: int, packed: bytes) -> int | None:
    """Return how much memory a batch's records take beside its bytes; None: too much."""
    if codec == 0:
        return 0
    try:
        return len(unpack(codec, packed))
    except TooLargeError:
        return None
    except Exception:  # noqa: BLE001 - each codec raises what it likes; aiokafka will find it too
        return 0

"""Keeps aiokafka from unpacking a batch that would take too much memory. Pure."""

from __future__ import annotations

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


def disarmed(raw: bytes) -> bytes:
    """Return fetched batches with a wrong checksum on each that would unpack to too much.

    So aiokafka, which unpacks whatever there is, gives up on such a batch before it does. Older
    formats than version 2 are left as they are: brokers have stored none since Kafka 3.0.
    """
    out, at = None, 0
    while (size := size_of(raw[at : at + START.size])) is not None and at + size <= len(raw):
        if _is_bomb(raw[at : at + size]):
            out = bytearray(raw) if out is None else out
            out[at + CRC_AT] ^= 0xFF
        at += size
    return raw if out is None else bytes(out)


def _is_bomb(batch: bytes) -> bool:
    if len(batch) < HEADER_BYTES or START.unpack_from(batch)[3] != MAGIC:
        return False
    codec = batch[ATTRIBUTES_LOW] & CODEC_BITS
    if codec == 0:
        return False
    try:
        unpack(codec, batch[HEADER_BYTES:])
    except TooLargeError:
        return True
    except Exception:  # noqa: BLE001 - each codec raises what it likes; aiokafka will find it too
        return False
    return False

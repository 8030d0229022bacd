"""Where what stands in a batch of records, version 2: Kafka's documentation, "Record Batch"."""

from __future__ import annotations

import struct
from typing import Final

START: Final = struct.Struct(">qiib")  # base offset, length, leader epoch, magic
# Checksum, attributes, last offset delta, first and last timestamp, producer (3), records.
REST: Final = struct.Struct(">Ihiqqqhii")
HEADER_BYTES: Final = START.size + REST.size
CRC_AT: Final = START.size
CHECKED_FROM: Final = CRC_AT + 4  # behind the checksum
ATTRIBUTES_LOW: Final = CHECKED_FROM + 1  # the byte with the codec
MAGIC: Final = 2
CODEC_BITS: Final = 0x07

_LENGTH: Final = struct.Struct(">qi")  # base offset, length of all that follows


def size_of(raw: bytes) -> int | None:
    """Return how many bytes a batch has that begins like this; None if that is not told."""
    if len(raw) < _LENGTH.size:
        return None
    length: int = _LENGTH.unpack_from(raw)[1]
    return _LENGTH.size + max(0, length)

"""Unpacks the records of a batch, in bounded memory. Pure.

Brokers take a batch by its packed size, and a few kilobytes may hold gigabytes: zstd packs a run of
zeros 30,000 to 1. Whoever may write to a topic could end every worker that reads it, one after
the other.

Snappy, lz4 and zstd take cramjam, which a client need not have: `HAS_CRAMJAM`.
"""

from __future__ import annotations

import gzip
import io
from typing import TYPE_CHECKING, Final

from aiokafka.codec import snappy_decode

try:
    import cramjam
except ModuleNotFoundError:
    HAS_CRAMJAM = False
else:
    HAS_CRAMJAM = True

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_UNPACKED_BYTES: Final = 16 << 20
"""Of one batch: sixteen of the largest jobs. Clients pack no more than 1 MB unless told to."""

_PIECE: Final = 64 << 10
_GROWTH: Final = 8
_XERIAL: Final = b"\x82SNAPPY\0\0\0\0\1\0\0\0\1"  # before blocks, each behind its length


class TooLargeError(ValueError):
    """Records that would take more than MAX_UNPACKED_BYTES."""

    def __init__(self) -> None:
        super().__init__(f"more than {MAX_UNPACKED_BYTES} bytes of records")


def unpack(codec: int, packed: bytes) -> bytes | bytearray:
    """Return what is packed, by Kafka's number of the codec; 0 is none.

    Raises TooLargeError, KeyError for a codec that is not there, and what each codec likes to.
    """
    return packed if codec == 0 else _CODECS[codec](packed)


def _gzip(packed: bytes) -> bytearray:
    out = bytearray()
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        while piece := file.read(_PIECE):
            out += piece
            if len(out) > MAX_UNPACKED_BYTES:
                raise TooLargeError
    return out


def _snappy(packed: bytes) -> bytes:
    """Add up what the blocks say that they hold: unpacking begins by taking so much memory."""
    blocks, at = [packed], len(_XERIAL)
    if packed.startswith(_XERIAL):
        blocks = []
        while at < len(packed):
            start = at + 4
            at = start + int.from_bytes(packed[at:start], signed=True)
            if at < start:
                raise ValueError("a block of a negative length")
            blocks.append(packed[start:at])
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > MAX_UNPACKED_BYTES:
        raise TooLargeError
    unpacked: bytes = snappy_decode(packed)
    return unpacked


def _into(unpack_into: Callable[[bytes, bytearray], int]) -> Callable[[bytes], bytearray]:
    """Unpack into a place of a fixed size, and into a larger one where that does not do."""

    def unpacked(packed: bytes) -> bytearray:
        size = _PIECE + _GROWTH * len(packed)
        while size < MAX_UNPACKED_BYTES:
            out = bytearray(size)
            try:
                del out[unpack_into(packed, out) :]
            except cramjam.DecompressionError:  # there is no room, or it is broken
                size *= _GROWTH
            else:
                return out
        out = bytearray(MAX_UNPACKED_BYTES)
        try:
            del out[unpack_into(packed, out) :]
        except cramjam.DecompressionError as error:
            if _NO_ROOM in str(error):
                raise TooLargeError from None
            raise
        return out

    return unpacked


_NO_ROOM: Final = "failed to write whole buffer"
_CODECS: Final[dict[int, Callable[[bytes], bytes | bytearray]]] = {1: _gzip}
if HAS_CRAMJAM:
    _CODECS[2] = _snappy
    _CODECS[3] = _into(cramjam.lz4.decompress_into)
    _CODECS[4] = _into(cramjam.zstd.decompress_into)

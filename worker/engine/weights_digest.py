"""What tells one backbone's weights from another's, known within moments of a start.

A whole hash of a 70B model takes minutes, and nobody may be answered before it is known. So of each
tensor name, type and shape are hashed, and four pieces of its bytes: whoever trains, merges or
converts a model changes whole tensors. Docs: decisions/049.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from aril.worker.adapters.own_weights import INDEX, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

PIECES: Final = 4
PIECE_BYTES: Final = 1024
_LENGTH_BYTES: Final = 8  # a safetensors file begins with the header's length, little-endian
_MAX_HEADER_BYTES: Final = 100_000_000  # safetensors' own bound


def weights_digest(folder: Path, dtype: torch.dtype, weights: str = "stored") -> str:
    """Return the digest of a model folder's weights in a type of numbers, SHA-256 in hexadecimal.

    The type counts, because `auto` chooses it by the processor: answers in the middle of which it
    changes were made by two models. So does whether the weights are computed in as they are stored.

    Into which files they are split does not count. Raises OSError, and ValueError for files that
    are no safetensors.
    """
    index = folder / INDEX
    files = [WEIGHTS]
    if index.is_file():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    tensors: dict[str, bytes] = {}
    for name in files:
        with (folder / name).open("rb") as file:
            tensors |= _tensors(file)
    numbers = str(dtype) if weights == "stored" else f"{dtype} {weights}"
    whole = hashlib.sha256(f"{numbers}\n".encode())
    for name in sorted(tensors):
        whole.update(tensors[name])
    return whole.hexdigest()


def _tensors(file: BinaryIO) -> dict[str, bytes]:
    """Return a digest of each tensor of a file, by name."""
    length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"{file.name} is no safetensors file")
    header: dict[str, Any] = json.loads(file.read(length))
    header.pop("__metadata__", None)
    begin = _LENGTH_BYTES + length
    return {name: _tensor(file, begin, name, header[name]) for name in header}


def _tensor(file: BinaryIO, begin: int, name: str, entry: dict[str, Any]) -> bytes:
    told = json.dumps([name, entry["dtype"], entry["shape"]])
    content = hashlib.sha256(f"{told}\n".encode())
    first, last = entry["data_offsets"]
    for start, size in _pieces(last - first):
        file.seek(begin + first + start)
        content.update(file.read(size))
    return content.digest()


def _pieces(size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and length of what is read of so many bytes: evenly spread, with both ends."""
    if size <= PIECES * PIECE_BYTES:
        yield 0, size
        return
    for number in range(PIECES):
        yield (size - PIECE_BYTES) * number // (PIECES - 1), PIECE_BYTES

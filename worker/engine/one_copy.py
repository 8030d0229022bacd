"""What the host tells a device, in one copy."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_KINDS: Final = {
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float64): torch.float64,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.float32): torch.float32,
}
_WORD: Final = 8  # bytes
# Words at whose multiples arrays begin: Triton compiles a kernel once more for each pointer that
# is no multiple of 16 bytes.
_ALIGNED: Final = 2


def one_copy(
    arrays: Sequence[NDArray[Any]], device: torch.device, into: Tensor | None = None
) -> list[Tensor]:
    """Return arrays of numbers of 32 or 64 bits, C-contiguous, as tensors on a device.

    They are packed into one block of memory, pinned for a GPU: one launch, and nobody waits (a copy
    out of other memory makes the host wait for all that the device was asked before). `into` is
    where they are to be copied, int64 [`words_of(arrays)`], so that their places stay. On a CPU
    without it they are not copied at all.
    """
    if device.type == "cpu" and into is None:
        return [torch.from_numpy(each) for each in arrays]
    words = np.empty(words_of(arrays), np.int64)
    starts = _starts(arrays)
    for each, start in zip(arrays, starts, strict=False):
        words.view(np.uint8)[start * _WORD :][: each.nbytes] = each.reshape(-1).view(np.uint8)
    block = torch.from_numpy(words)
    if device.type == "cuda":
        block = pinned(block)
    if into is None:
        into = block.to(device, non_blocking=True)
    else:
        into.copy_(block, non_blocking=True)
    return [
        into[start:stop].view(_KINDS[each.dtype])[: each.size].view(each.shape)
        for each, start, stop in zip(arrays, starts, starts[1:], strict=False)
    ]


def words_of(arrays: Sequence[NDArray[Any]]) -> int:
    """Return how many words of 8 bytes `one_copy` packs arrays into."""
    return _starts(arrays)[-1]


def pinned(words: Tensor) -> Tensor:
    """Put them where a GPU can fetch them; torch keeps such memory until it has."""
    return words.pin_memory()


def _starts(arrays: Sequence[NDArray[Any]]) -> list[int]:
    """Return the word at which each array begins, and that behind the last one."""
    bytes_ = _ALIGNED * _WORD
    return [0, *accumulate(-(-each.nbytes // bytes_) * _ALIGNED for each in arrays)]

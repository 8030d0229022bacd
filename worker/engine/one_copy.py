"""What the host tells a device, in one copy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

_KINDS: Final = {np.dtype(np.int64): torch.int64, np.dtype(np.float64): torch.float64}


def one_copy(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Return arrays of int64 or float64, of one dimension each, as tensors on a device.

    They are packed into one block of memory, pinned for a GPU: one launch, and nobody waits.
    """
    words = torch.from_numpy(np.concatenate([each.view(np.int64) for each in arrays]))
    if device.type == "cuda":
        words = pinned(words)
    there = words.to(device, non_blocking=True).split([len(each) for each in arrays])
    return [part.view(_KINDS[each.dtype]) for part, each in zip(there, arrays, strict=True)]


def pinned(words: Tensor) -> Tensor:
    """Put them where a GPU can fetch them; torch keeps such memory until it has."""
    return words.pin_memory()

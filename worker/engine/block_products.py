"""Products in blocks of one shape, so that no library chooses its kernel by the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# A block costs what its weights cost to read, however few rows it has: as many as decode at once.
BLOCK_ROWS = 16


def in_blocks(multiply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return multiply(x) for x [..., in], computed in blocks of BLOCK_ROWS rows.

    Rows of zeros fill the last block. `multiply` takes and returns matrices of that many rows.
    """
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    if count == 0:
        return multiply(x)
    blocks = pad(rows, (0, 0, 0, -count % BLOCK_ROWS)).split(BLOCK_ROWS)
    y = torch.cat([multiply(block) for block in blocks])[:count]
    return y.view(*x.shape[:-1], y.shape[-1])

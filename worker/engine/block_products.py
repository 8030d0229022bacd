"""Products in pieces of few different row counts.

oneDNN makes a kernel, and keeps it, for each row count that it meets, some hundred kilobytes each:
a step's rows are filled up to one of `ROW_COUNTS` with zeros, or cut into several, so memory has a
bound (decision 067). In invariant mode the counts are those under which a row keeps its bits
(row_classes.py).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch.nn.functional import pad

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# Rising; 16 kernels a shape of weight.
ROW_COUNTS: Final = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)

BLOCK_ROWS: Final = 16
"""Of one product where nothing is known of others: as many rows as decode at once."""

# A product of n rows costs as much time as n + WEIGHT_ROWS rows' arithmetic: its weights are read,
# however few rows there are. SmolLM2-135M on an AMD EPYC, 2 cores, 29 November 2026: float32 10.9
# ms and 0.45 a row, bfloat16 6.6 and 0.22.
WEIGHT_ROWS: Final = 24


class Piece(NamedTuple):
    """Rows `first` to `last`, computed as a product of `rows`, which is as many or more."""

    first: int
    last: int
    rows: int


def in_pieces(
    multiply: Callable[[Tensor], Tensor], x: Tensor, row_counts: tuple[int, ...]
) -> Tensor:
    """Return multiply(x) for x [..., in], computed in products of these row counts only.

    `row_counts` rise, and there is at least one. `multiply` takes and returns matrices.
    """
    width = x.shape[-1]
    count = x.numel() // width
    if count == 0 or count in row_counts:
        return multiply(x)
    rows = x.reshape(-1, width)
    made = [
        multiply(_filled(rows[first:last], size))[: last - first]
        for first, last, size in cut(count, row_counts)
    ]
    y = made[0] if len(made) == 1 else torch.cat(made)
    return y.view(*x.shape[:-1], y.shape[-1])


def in_blocks(multiply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Do the same in blocks of BLOCK_ROWS rows."""
    return in_pieces(multiply, x, (BLOCK_ROWS,))


@lru_cache(maxsize=4096)
def cut(count: int, row_counts: tuple[int, ...]) -> tuple[Piece, ...]:
    """Cut so many rows, at least one, into pieces that cost the least together.

    Each piece but the last is full.
    """
    pieces: list[Piece] = []
    first, sizes = 0, _sizes(count, row_counts)
    for size in sizes:
        last = min(first + size, count)
        pieces.append(Piece(first, last, size))
        first = last
    return tuple(pieces)


def _sizes(count: int, row_counts: tuple[int, ...]) -> tuple[int, ...]:
    """Choose between one piece, filled up, and the largest full one before the rest."""
    largest = row_counts[-1]
    whole, rest = divmod(count, largest)
    if whole:
        return (largest,) * whole + (_sizes(rest, row_counts) if rest else ())
    filled = next(size for size in row_counts if size >= count)
    full = max((size for size in row_counts if size <= count), default=None)
    if full is None or filled == count:
        return (filled,)
    split = full, *_sizes(count - full, row_counts)
    return min((filled,), split, key=lambda sizes: sum(sizes) + WEIGHT_ROWS * len(sizes))


def _filled(rows: Tensor, count: int) -> Tensor:
    return rows if len(rows) == count else pad(rows, (0, 0, 0, count - len(rows)))

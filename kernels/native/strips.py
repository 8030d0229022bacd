"""Products with a small weight that lies in strips of columns, as tiles read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from aril.kernels.native.scalars import compiled
from aril.kernels.native.tiles import COLUMNS, LANES, ROWS, WIDE, tile

if TYPE_CHECKING:
    from torch import Tensor


def _strip(vectors: int, lanes: int = LANES) -> Any:
    """Make the function that multiplies any number of rows by a strip of so many vectors."""
    four, two, one = (tile(rows, vectors, lanes, adds=False) for rows in (ROWS, 2, 1))
    pitch = vectors * lanes

    @compiled
    def multiply(
        c: Any,
        c_at: Any,
        c_row: Any,
        a: Any,
        a_at: Any,
        a_row: Any,
        b: Any,
        b_at: Any,
        depth: Any,
        rows: Any,
    ) -> None:
        i = 0
        while i + ROWS <= rows:
            four(c, c_at + i * c_row, c_row, a, a_at + i * a_row, a_row, b, b_at, pitch, depth)
            i += ROWS
        if i + 2 <= rows:
            two(c, c_at + i * c_row, c_row, a, a_at + i * a_row, a_row, b, b_at, pitch, depth)
            i += 2
        if i < rows:
            one(c, c_at + i * c_row, c_row, a, a_at + i * a_row, a_row, b, b_at, pitch, depth)

    return multiply


_half = _strip(1, LANES // 2)
_one, _two, _three = (_strip(min(vectors, WIDE)) for vectors in (1, 2, 3))
_whole = _strip(WIDE)


@compiled
def set_product(
    c: Any,
    c_at: Any,
    c_row: Any,
    a: Any,
    a_at: Any,
    a_row: Any,
    b: Any,
    b_at: Any,
    depth: Any,
    rows: Any,
    columns: Any,
) -> None:
    """Write c [rows, columns] = a [rows, depth] · b, of which `in_strips` has made strips.

    c has room for `filled_columns`. All numbers but the last three are places and distances.
    """
    at = 0
    while at + COLUMNS <= columns:
        _whole(c, c_at + at, c_row, a, a_at, a_row, b, b_at + at * depth, depth, rows)
        at += COLUMNS
    left = columns - at
    if left > 3 * LANES:
        _whole(c, c_at + at, c_row, a, a_at, a_row, b, b_at + at * depth, depth, rows)
    elif left > 2 * LANES:
        _three(c, c_at + at, c_row, a, a_at, a_row, b, b_at + at * depth, depth, rows)
    elif left > LANES:
        _two(c, c_at + at, c_row, a, a_at, a_row, b, b_at + at * depth, depth, rows)
    elif left > LANES // 2:
        _one(c, c_at + at, c_row, a, a_at, a_row, b, b_at + at * depth, depth, rows)
    elif left > 0:
        _half(c, c_at + at, c_row, a, a_at, a_row, b, b_at + at * depth, depth, rows)


def filled_columns(columns: int) -> int:
    """Return how many columns strips of so many have: whole vectors, or half a one at the end."""
    left = columns % COLUMNS
    step = LANES // 2 if left <= LANES // 2 else LANES
    return columns + -left % step


def in_strips(weight: Tensor) -> Tensor:
    """Lay [depth, columns] out as tiles read it, one dimension: COLUMNS columns after the other.

    Zeros fill the last ones up, see `filled_columns`.
    """
    columns = weight.shape[1]
    filled = pad(weight, (0, filled_columns(columns) - columns))
    return torch.cat([strip.flatten() for strip in filled.split(COLUMNS, 1)])

"""Which row counts give a row the same bits, found on the machine at hand.

A library chooses its kernel, and with it the order of a row's sum, by the shape of the whole
product; where it changes its mind differs from shape to shape, version to version and processor to
processor. So the start asks each shape of weight (decision 067): all row counts under which a row
has, in every place, the bits that it has among `BLOCK_ROWS` rows are one class, and steps are made
of those alone. Because the class hangs on one count, workers whose limits differ agree.

The question is asked with numbers whose exact sum is zero, in an order drawn at random: what comes
out is rounding errors and nothing else, so that another order shows in almost every element, in
bfloat16 as in float32. What is not proved: that the kernel goes by shapes alone and not by what is
in the matrices or where they lie. `probe_invariance` then compares the whole model, on its weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from aril.worker.engine.block_products import BLOCK_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Product = Callable[[Tensor], Tensor]

# Counts whose class may be taken, in this order. A single row has but one place.
ANCHORS: Final = (BLOCK_ROWS, 8, 4, 2, 1)

_ROWS = 3  # different ones: in so many turns each has been in each place
_POWERS = 6  # of two, up and down
_SEED = 20_261_129


def alike_row_counts(
    make: Callable[[Tensor], Product],
    shape: tuple[int, int],
    dtype: torch.dtype,
    row_counts: Sequence[int],
    *,
    integers: bool = False,
) -> tuple[int, ...]:
    """Return those of the row counts under which a row has the same bits, rising.

    `make` turns a weight of `shape` (out, in) into its product, as the model's own are made. Where
    its sums are of integers they are exact, and the question is how they are rounded.
    """
    weight, rows = (positive if integers else cancelling)(shape, dtype)
    multiply = make(weight)
    del weight
    anchor, expected = _anchor(multiply, rows)
    return tuple(
        sorted(
            {anchor}
            | {count for count in row_counts if _keeps(multiply, rows, expected, count, turn=0)}
        )
    )


def cancelling(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a weight [out, in] and rows [3, in] whose exact product is zero everywhere.

    Each term of a sum comes once with either sign, somewhere. Sizes differ by powers of two, so
    that sums are rounded often though bfloat16's products are exact. Of an odd `in` one column is
    zeros.
    """
    out, width = shape
    generator = torch.Generator().manual_seed(_SEED)
    half = width // 2
    places = torch.randperm(width, generator=generator)
    weight = torch.zeros(out, width, dtype=dtype)
    terms = torch.randn(out, half, generator=generator).to(dtype)
    weight[:, places[:half]] = terms
    weight[:, places[half : 2 * half]] = -terms
    rows = torch.zeros(_ROWS, width, dtype=dtype)
    sizes = torch.randint(-_POWERS, _POWERS + 1, (_ROWS, half), generator=generator)
    values = (torch.randn(_ROWS, half, generator=generator) * 2.0**sizes).to(dtype)
    rows[:, places[:half]] = values
    rows[:, places[half : 2 * half]] = values
    return weight, rows


def positive(shape: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return a weight [out, in] and rows [3, in] whose products in eight bits are all rounded.

    None is negative, so sums are as large as they get, and each row has its own scale.
    """
    generator = torch.Generator().manual_seed(_SEED)
    out, width = shape
    weight = torch.rand(out, width, generator=generator).to(dtype)
    return weight, torch.rand(_ROWS, width, generator=generator).to(dtype)


def _anchor(multiply: Product, rows: Tensor) -> tuple[int, Tensor]:
    """Return the first anchor under which a row's place doesn't matter, and the rows' products."""
    for count in ANCHORS:
        expected = torch.cat([multiply(_turned(rows, count, turn))[:1] for turn in range(_ROWS)])
        if all(_keeps(multiply, rows, expected, count, turn=turn) for turn in range(_ROWS)):
            return count, expected
    raise AssertionError("a single row's bits differ from one call to the next")


def _keeps(multiply: Product, rows: Tensor, expected: Tensor, count: int, *, turn: int) -> bool:
    return torch.equal(multiply(_turned(rows, count, turn)), _turned(expected, count, turn))


def _turned(rows: Tensor, count: int, turn: int) -> Tensor:
    """Repeat the rows, beginning with another one each turn."""
    return rows[(torch.arange(count) + turn) % len(rows)]

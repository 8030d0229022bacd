"""Top entries of rows in an order that has no ties left."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def top_ordered(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` largest entries of each row, largest first, equal ones by column.

    values: [n, columns] -> values [n, count] and columns [n, count] (int64). `torch.topk` alone
    leaves open which of several equal entries it takes and in which order; this is exact, and a
    row's result does not depend on the other rows. The columns must be free of NaN.
    """
    columns = values.shape[1]
    if count >= columns:
        ordered, ids = values.sort(dim=1, descending=True, stable=True)
        return ordered, ids
    top, ids = values.topk(count + 1, dim=1)
    ambiguous = top[:, count - 1] == top[:, count]  # equal entries in and outside the first ones
    top, ids = top[:, :count].contiguous(), ids[:, :count].contiguous()
    for row in ambiguous.nonzero()[:, 0].tolist():
        last = top[row, -1]
        above = int((top[row] > last).sum())
        ids[row, above:] = (values[row] == last).nonzero()[: count - above, 0]
    ids, by_column = ids.sort(dim=1)
    top, by_value = top.gather(1, by_column).sort(dim=1, descending=True, stable=True)
    return top, ids.gather(1, by_value)

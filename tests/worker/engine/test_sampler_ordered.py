"""Exact top entries: the order has no ties and no row sees another."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from aril.worker.engine.ordered import top_ordered


@given(
    data=st.data(),
    columns=st.integers(1, 40),
    rows=st.integers(1, 4),
    distinct=st.integers(1, 6),
)
def test_equal_to_a_sort_by_value_and_column(
    data: st.DataObject, columns: int, rows: int, distinct: int
) -> None:
    """With few distinct values, so many ties, the result is Python's sort by (-value, id)."""
    values = data.draw(
        st.lists(
            st.lists(st.integers(0, distinct), min_size=columns, max_size=columns),
            min_size=rows,
            max_size=rows,
        )
    )
    count = data.draw(st.integers(1, columns))
    top, ids = top_ordered(torch.tensor(values, dtype=torch.float32), count)
    for row, got_values, got_ids in zip(values, top.tolist(), ids.tolist(), strict=True):
        expected = sorted(range(columns), key=lambda column: (-row[column], column))[:count]
        assert got_ids == expected
        assert got_values == [row[column] for column in expected]


@given(seed=st.integers(0, 2**31), columns=st.integers(700, 1000), count=st.integers(1, 4))
def test_many_columns_are_searched_by_chunks(seed: int, columns: int, count: int) -> None:
    """Where only the best chunks are looked at, ties across and behind them still go by column."""
    values = torch.randint(0, 120, (2, columns), generator=torch.Generator().manual_seed(seed))
    top, ids = top_ordered(values.float(), count)
    for row, got_values, got_ids in zip(values.tolist(), top.tolist(), ids.tolist(), strict=True):
        expected = sorted(range(columns), key=lambda column: (-row[column], column))[:count]
        assert got_ids == expected
        assert got_values == [row[column] for column in expected]


@given(
    rows=st.lists(
        st.lists(
            st.sampled_from([0.0, -0.0, 1e-45, -1e-45, -math.inf, math.inf])
            | st.floats(allow_nan=False, width=32),
            min_size=9,
            max_size=9,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_whole_rows_are_ordered_as_a_stable_sort_does(rows: list[list[float]]) -> None:
    """Signs, zeros of both kinds, infinities, subnormals: the same columns, the same values."""
    values = torch.tensor(rows)
    top, ids = top_ordered(values, 9)
    expected = values.sort(dim=1, descending=True, stable=True)
    assert torch.equal(ids, expected.indices)
    assert torch.equal(top, expected.values)

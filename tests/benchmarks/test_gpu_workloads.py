"""The batches that benchmarks time are those of Punica's script, and cases say what they are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.workloads import (
    MIXED_RANKS,
    TINY,
    Case,
    Workload,
    decode_case,
    mixed_rank_case,
    parse_config,
    prefill_case,
    segment_sizes,
    spread,
)

ROWS = st.integers(1, 2000)


@given(st.sampled_from(list(Workload)), ROWS)
def test_every_row_has_an_adapter(workload: Workload, rows: int) -> None:
    """Sizes are positive, largest first, and sum to the rows."""
    sizes = segment_sizes(workload, rows)
    assert sum(sizes) == rows
    assert min(sizes) >= 1
    assert sizes == sorted(sizes, reverse=True)


@given(ROWS)
def test_adapters_of_each_workload(rows: int) -> None:
    """Distinct has an adapter a row, Identical one, Uniform ⌈√rows⌉ that differ by one at most."""
    assert segment_sizes(Workload.DISTINCT, rows) == [1] * rows
    assert segment_sizes(Workload.IDENTICAL, rows) == [rows]
    uniform = segment_sizes(Workload.UNIFORM, rows)
    assert len(uniform) == math.ceil(math.sqrt(rows))
    assert uniform[0] - uniform[-1] <= 1


@pytest.mark.parametrize(
    ("rows", "sizes"),
    [
        (1, [1]),
        (2, [1, 1]),
        (32, [11, 7, 5, 3, 2, 2, 1, 1]),
        (64, [17, 17, 11, 7, 5, 3, 2, 1, 1]),
    ],
)
def test_skewed_as_punica_draws_it(rows: int, sizes: list[int]) -> None:
    """The sizes that `get_lora_lens(rows, "zipf:1.5")` returns."""
    assert segment_sizes(Workload.SKEWED, rows) == sizes


@pytest.mark.parametrize("workload", list(Workload))
def test_one_row_is_the_same_problem_in_all(workload: Workload) -> None:
    """Why the four facets of the roofline begin at one point."""
    assert segment_sizes(workload, 1) == [1]


@pytest.mark.parametrize("workload", list(Workload))
def test_no_batch_without_rows(workload: Workload) -> None:
    """Nothing to share is an error, not an empty list."""
    with pytest.raises(ValueError, match="at least one row, got 0"):
        segment_sizes(workload, 0)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=9), st.integers(0, 3))
def test_rows_are_shuffled_the_same_way_each_time(sizes: list[int], seed: int) -> None:
    """Each slot keeps its number of rows; a seed gives one order."""
    rows = spread(sizes, seed=seed)
    assert [rows.count(slot) for slot in range(len(sizes))] == sizes
    assert rows == spread(sizes, seed=seed)


def test_adapters_lie_apart() -> None:
    """A decode batch is in order of arrival, which is not the order of adapters."""
    rows = decode_case(Workload.UNIFORM, TINY[0], 64, 16).row_slots
    assert list(rows) != sorted(rows)


def test_a_case_counts_itself() -> None:
    """Segments leave the rows without adapter out; slices have the rank of their slot."""
    case = prefill_case(TINY[0], [5, 3], decodes=2, backbone=4, rank=8)
    assert case.rows == 14
    assert case.segments == {0: 6, 1: 4}
    assert case.slice_ranks == {0: [8] * 3, 1: [8] * 3}
    assert not case.decode


CASES = [
    decode_case(Workload.SKEWED, TINY[1], 7, 16, dtype="float32"),
    mixed_rank_case(Workload.DISTINCT, TINY[0], 5, dtype="float16"),
    prefill_case(TINY[0], [4], decodes=2, backbone=1, dtype="bfloat16"),
]


@pytest.mark.parametrize("case", CASES)
def test_a_result_says_what_it_measured(case: Case) -> None:
    """What `config` writes, `parse_config` reads."""
    parts = parse_config(case.config + "; 1 thread")
    assert (parts["workload"], parts["layer"]) == (case.workload, case.layer.name)
    assert (parts["sizes"], parts["dtype"]) == (case.layer.sizes, case.dtype)


def test_mixed_ranks_are_mixed() -> None:
    """Slots take the five ranks in turn."""
    case = mixed_rank_case(Workload.DISTINCT, TINY[0], 7)
    assert case.ranks == (*MIXED_RANKS, *MIXED_RANKS[:2])


@pytest.mark.parametrize("case", CASES)
def test_whole_numbers_stay_exact(case: Case) -> None:
    """No element of the answer passes 256, where a bf16 stops to be exact; and it is not all 0."""
    problem = make_problem(case, "cpu", integers=True)
    delta = problem.exact() - problem.y.double()
    assert float(problem.exact().abs().max()) <= 256
    assert bool((delta != 0).any())
    assert torch.equal(problem.exact(), problem.exact().round())


@pytest.mark.parametrize("case", CASES)
def test_weights_past_a_rank_are_zero(case: Case) -> None:
    """Peers that run everything at the highest rank must get the right answer from that."""
    problem = make_problem(case, "cpu")
    for slot, rank in enumerate(problem.ranks):
        assert all(bool((part[slot, rank:] == 0).all()) for part in problem.a)
        assert all(bool((part[slot, :, rank:] == 0).all()) for part in problem.b)

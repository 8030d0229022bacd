"""The batches that benchmarks time are those of Punica's script, and cases say what they are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.gpu.cases import GRID, RANKS, ROWS, all_cases, counted_cases, full_cases
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.workloads import (
    LLAMA_8B,
    MIXED_RANKS,
    PUNICA,
    TINY,
    Case,
    Workload,
    decode_case,
    dora_case,
    mixed_rank_case,
    parse_config,
    prefill_case,
    segment_sizes,
    spread,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ANY_ROWS = st.integers(1, 2000)


@given(st.sampled_from(list(Workload)), ANY_ROWS)
def test_every_row_has_an_adapter(workload: Workload, rows: int) -> None:
    """Sizes are positive, largest first, and sum to the rows."""
    sizes = segment_sizes(workload, rows)
    assert sum(sizes) == rows
    assert min(sizes) >= 1
    assert sizes == sorted(sizes, reverse=True)


@given(ANY_ROWS)
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
    dora_case(Workload.SKEWED, TINY[0], 7, 16, dtype="bfloat16"),
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


def test_some_adapters_have_gains() -> None:
    """Every second one; the answer is multiplied by them, and by nothing elsewhere."""
    case = dora_case(Workload.DISTINCT, TINY[0], 4, 8, dtype="float32")
    assert case.dora == (0, 2)
    problem = make_problem(case, "cpu")
    assert problem.gains is not None
    plain = replace(problem, gains=None).exact()
    for row, slot in enumerate(problem.row_slots.tolist()):
        gain = problem.gains[slot].double() if slot in case.dora else 1.0
        assert torch.equal(problem.exact()[row], plain[row] * gain)


@pytest.mark.parametrize("listed", [all_cases, full_cases])
def test_no_two_cases_look_alike_in_the_results(listed: Callable[[], list[Case]]) -> None:
    """A run that goes on tells cases by these two."""
    cases = listed()
    assert len({(case.config, case.rows) for case in cases}) == len(cases)


def test_a_plain_run_begins_with_what_tells_most() -> None:
    """All workloads at 64, 1, 16 and 4 rows, on Punica's shape and those of an 8B model."""
    first = all_cases()[:65]
    assert [case.layer for case in first[::13]] == [PUNICA, *(LLAMA_8B[i] for i in (0, 2, 3, 1))]
    assert {(case.workload, case.rows) for case in first[:13]} == {
        (workload, rows)
        for rows in (1, 4, 16, 64)
        for workload in (Workload if rows > 1 else (Workload.DISTINCT,))
    }
    assert all(case.ranks[0] == 16 for case in first)


def test_the_whole_grid_is_whole() -> None:
    """Behind the plain cases: workloads by rows by ranks, on the fused groups of both models."""
    cases = full_cases()
    assert cases[: len(all_cases())] == all_cases()
    there = {(case.config, case.rows) for case in cases}
    for layer in GRID:
        for rows in ROWS:
            for workload in Workload if rows > 1 else (Workload.DISTINCT,):
                for rank in RANKS:
                    assert (decode_case(workload, layer, rows, rank).config, rows) in there
                if rows > 1:
                    assert (mixed_rank_case(workload, layer, rows).config, rows) in there
        for tokens in (128, 8192):
            for rank in (16, 64, 128):
                assert (prefill_case(layer, [tokens], rank=rank).config, tokens) in there


def test_launches_are_counted_on_cases_that_are_timed() -> None:
    """A plain run has them all."""
    assert set(counted_cases()) <= set(all_cases())


def test_the_documentation_counts_the_cases() -> None:
    """As the command prints them before it starts."""
    text = (Path(__file__).parents[2] / "docs/sgmv.md").read_text()
    plain, full = len(all_cases()), len(full_cases())
    assert f"A plain run has {plain} cases of the operator" in text
    assert f"`--full` adds {full - plain}" in text

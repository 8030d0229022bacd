"""The byte model: its counts, ceilings, and Punica's formula with the published factors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.kernels.sgmv.cost import (
    Cost,
    Roofs,
    gather_bmm_cost,
    gathered_bmm_cost,
    punica_bytes,
    sgmv_cost,
)
from benchmarks.gpu.workloads import Workload, segment_sizes

SEGMENTS = st.dictionaries(st.integers(0, 9), st.integers(0, 70), min_size=1, max_size=6)
H, WIDTH, RANK = 48, 40, 4


def costs(segments: dict[int, int]) -> dict[str, Cost]:
    """Count one batch in every way."""
    ranks = {slot: [RANK] for slot in segments}
    return {
        "sgmv": sgmv_cost(segments, ranks, in_features=H, widths=[WIDTH]),
        "gathered": gathered_bmm_cost(segments, ranks, in_features=H, widths=[WIDTH]),
        "cached": gather_bmm_cost(segments, ranks, in_features=H, widths=[WIDTH], cached=True),
        "gather": gather_bmm_cost(segments, ranks, in_features=H, widths=[WIDTH]),
    }


@given(SEGMENTS)
def test_every_way_does_the_same_work(segments: dict[int, int]) -> None:
    """Flops agree, and bytes grow from SGMV over ready copies to copying with and without cache."""
    counted = costs(segments)
    assert len({cost.flops for cost in counted.values()}) == 1
    moved = [cost.bytes for cost in counted.values()]
    assert moved == sorted(moved)


@given(SEGMENTS)
def test_copies_are_what_differs(segments: dict[int, int]) -> None:
    """In units of one adapter's weights: SGMV reads m, ready copies n, copying m + 2n or 3n."""
    unit = 2 * RANK * (H + WIDTH)
    rows, adapters = sum(segments.values()), sum(size > 0 for size in segments.values())
    counted = costs(segments)
    weights = {way: (cost.bytes - counted["sgmv"].bytes) / unit for way, cost in counted.items()}
    assert weights["gathered"] == rows - adapters
    assert weights["cached"] == 2 * rows
    assert weights["gather"] == 3 * rows - adapters


def test_one_row_for_each_adapter_needs_no_reuse() -> None:
    """In Distinct the ready copies are the weights: BMM alone has the bytes of SGMV, no fewer."""
    counted = costs(dict.fromkeys(range(8), 1))
    assert counted["gathered"] == counted["sgmv"]


@pytest.mark.parametrize(
    ("workload", "published"),
    [(Workload.DISTINCT, 2.9), (Workload.UNIFORM, 11.7), (Workload.IDENTICAL, 26.5)],
)
def test_the_published_factors(workload: Workload, published: float) -> None:
    """Punica's formula gives them, for 64 rows, rank 16, 4096 features, repeats cached."""
    adapters = len(segment_sizes(workload, 64))
    ours = punica_bytes(64, adapters, rank=16, in_features=4096, width=4096)
    copies = 2 * 64 * 16 * (4096 + 4096) * 2
    assert (ours + copies) / ours == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("workload", list(Workload))
def test_what_punicas_formula_leaves_out(workload: Workload) -> None:
    """Ours counts y twice, as it is read and written, and the shrunk rows in fp32."""
    sizes = segment_sizes(workload, 64)
    ranks = {slot: [16] for slot in range(len(sizes))}
    ours = sgmv_cost(dict(enumerate(sizes)), ranks, in_features=4096, widths=[4096]).bytes
    theirs = punica_bytes(64, len(sizes), rank=16, in_features=4096, width=4096)
    assert ours - theirs == 64 * 4096 * 2 + 2 * 64 * 16 * 2


def test_the_slowest_ceiling_is_the_time() -> None:
    """Each of the three can be the one that counts."""
    roofs = Roofs(memory=10.0, products=100.0, launch=3.0)
    assert roofs.seconds(Cost(flops=1, bytes=1)) == 6.0
    assert roofs.seconds(Cost(flops=1, bytes=100)) == 10.0
    assert roofs.seconds(Cost(flops=2000, bytes=100)) == 20.0
    assert roofs.seconds(Cost(flops=1, bytes=1), launches=1) == 3.0

"""The two launches of a call, timed apart: right alone, a whole together, and seen where wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aril.kernels.sgmv.launch import sgmv_expand, sgmv_shrink
from benchmarks.gpu import halves as halves_module
from benchmarks.gpu.candidates import expand_part, shrink_part
from benchmarks.gpu.halves import Halves
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.sweep_sgmv import current
from benchmarks.gpu.workloads import TINY, Workload, decode_case

pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim > 0:DeprecationWarning"  # the interpreter's own
)
CASE = decode_case(Workload.SKEWED, TINY[0], 6, 16, dtype="float16")


def tiny_halves() -> Halves:
    """Draw a case of three slices in two sets."""
    return Halves([make_problem(CASE, "cpu", seed=seed) for seed in (2, 3)])


@pytest.mark.parametrize("block_m", [1, 4, 16])
@pytest.mark.parametrize("splits", [1, 2])
def test_halves_are_right_and_make_a_whole(block_m: int, splits: int) -> None:
    """Each half alone is what fp64 says; one after the other they are the operator's call."""
    own = tiny_halves()
    tiles = current(CASE)["tensor cores"]._replace(block_m=block_m, splits=splits, shrink_k=32)
    shrink, expand = shrink_part(tiles), expand_part(tiles)
    assert own.shrink_error(shrink) < 1
    assert own.expand_error(expand) < 1
    other = tiny_halves()
    for number in (0, 1):
        own.shrink(shrink)[number]()
        own.expand(expand)[number]()
        other.whole(tiles)[number]()
        assert torch.equal(own.pool[number].y, other.pool[number].y)
    assert own.expand_error(expand) < 1, "what was added meanwhile is in no check"


def test_wrong_halves_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A split that is not written; a row to which nothing is added."""
    tiles = current(CASE)["tensor cores"]._replace(splits=2, shrink_k=32)
    shrink, expand = sgmv_shrink, sgmv_expand

    def forgets_a_split(planes: torch.Tensor, *operands: Any) -> None:
        written = torch.zeros_like(planes)
        shrink(written, *operands)
        planes[0], planes[1] = written[0], 0.0

    def forgets_a_row(y: torch.Tensor, *operands: Any) -> None:
        before = y[2].clone()
        expand(y, *operands)
        y[2] = before

    monkeypatch.setattr(halves_module, "sgmv_shrink", forgets_a_split)
    monkeypatch.setattr(halves_module, "sgmv_expand", forgets_a_row)
    assert tiny_halves().shrink_error(shrink_part(tiles)) > 1
    assert tiny_halves().expand_error(expand_part(tiles)) > 1

"""Every candidate of the sweep compiles for a GPU without spilling, also where there is none.

The rules that leave candidates out (`fits`) are bounds found by compiling; here each candidate that
they leave in is compiled to Hopper machine code, so that a changed kernel shows whether they hold.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aril.kernels.sgmv.tiles import MIN_TILE
from benchmarks.gpu.candidates import SHARED_MEMORY, expands, shrinks
from benchmarks.gpu.sweep_attention import STAGES, candidates, shapes_of
from tests.kernels.test_compile import attend, expand, shrink, table_tiles
from tests.support.offline_compile import Compiled, Job, compile_all

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aril.kernels.attention.tiles import AttentionTiles

FEW_BYTES = 64  # spilled: registers around the loop; a tile that doesn't fit is hundreds and more
BATCH = 150  # jobs of one process, which has a time limit


def compiled(jobs: list[Job], folder: Path) -> Iterator[tuple[Job, Compiled]]:
    """Compile, some at a time."""
    for first in range(0, len(jobs), BATCH):
        some = jobs[first : first + BATCH]
        yield from zip(some, compile_all(some, folder), strict=True)


def check(jobs: list[Job], folder: Path) -> list[tuple[Job, Compiled]]:
    """Compile, and name those that spill or have no room."""
    found = list(compiled(jobs, folder))
    bad = [
        (job.constants, job.warps, job.stages, answer.spilled, answer.shared)
        for job, answer in found
        if answer.spilled > FEW_BYTES or answer.shared > SHARED_MEMORY
    ]
    assert not bad
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [16, 64, 128])
def test_no_half_of_sgmv_spills(rank: int, tmp_path: Path) -> None:
    """With three slices; narrower x has fewer splits and nothing else."""
    both = [
        (
            shrinks(in_features=14336, max_rank=rank, decode=decode),
            expands(in_features=14336, max_rank=rank, decode=decode),
        )
        for decode in (True, False)
    ]
    start = table_tiles(16, rank)
    before = dict.fromkeys(part for parts, _ in both for part in parts)
    after = dict.fromkeys(part for _, parts in both for part in parts)
    jobs = [shrink("bf16", start._replace(**part._asdict()), rank) for part in before]
    jobs += [expand("bf16", start._replace(**part._asdict()), rank, gain=False) for part in after]
    for job, answer in check(jobs, tmp_path):
        assert answer.dot is (job.constants["BLOCK_M"] >= MIN_TILE)


def attention_job(tiles: AttentionTiles, dim: int) -> Job:
    """Make the job of attention with given tiles."""
    job = attend("bf16", 16, dim=dim)
    fields = {"BLOCK_M": tiles.block_m, "BLOCK_N": tiles.block_n}
    return replace(job, constants=job.constants | fields, warps=tiles.warps, stages=tiles.stages)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("dim", [64, 128])
def test_no_tile_of_attention_spills(dim: int, tmp_path: Path) -> None:
    """No pipelined wgmma among them, which ptxas miscompiles when weights come from registers."""
    tried = dict.fromkeys(tiles for shape in shapes_of(dim) for tiles in candidates(shape))
    for job, answer in check([attention_job(tiles, dim) for tiles in tried], tmp_path):
        assert answer.wgmma is (job.constants["BLOCK_M"] >= 64)
        assert not (answer.wgmma and job.stages > 1)


@pytest.mark.slow
def test_other_depths_of_the_pipeline_are_the_same_code(tmp_path: Path) -> None:
    """The page's number takes stages as keys do: 4 is 3 again, 6 is 5; those tried all differ."""
    tiles = candidates(shapes_of(128)[0])[0]._replace(block_n=64)
    depths = (*STAGES, 4, 6)
    jobs = [attention_job(tiles._replace(stages=stages), 128) for stages in depths]
    found = {
        depth: (answer.registers, answer.shared, answer.wide)
        for depth, (_, answer) in zip(depths, compiled(jobs, tmp_path), strict=True)
    }
    assert found[4] == found[3]
    assert found[6] == found[5]
    assert len(set(found.values())) == len(STAGES)

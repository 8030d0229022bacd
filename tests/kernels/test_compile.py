"""The Triton kernels compile for a GPU, also where there is none.

The interpreter accepts what the compiler refuses (untyped loop variables, tiles below the
hardware's least, nested returns), so each kernel is compiled to Hopper machine code here, with the
arguments that a launch gives it. What comes out says what no interpreter can: which unit computes,
how wide the loads are, whether registers and shared memory suffice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aril.kernels.attention.tiles import choose_tiles as choose_attention
from aril.kernels.sgmv import SgmvMode
from aril.kernels.sgmv.tiles import EXPAND_STAGES, Tiles, choose_tiles, matrix_vector_tiles
from tests.support.offline_compile import Job, compile_all

if TYPE_CHECKING:
    from pathlib import Path

TABLES = {"ranks": "*i32", "block_rows": "*i32", "block_slots": "*i32"}
SEQUENCES = {"cu_q": "*i32", "kv_lens": "*i32", "block_table": "*i32"}
SLICES = 3
PIECE = 8
# What differs from step to step in a service; all else is known when its first steps ran.
STEPS = {
    "shrink_kernel": {"rows_total"},
    "expand_kernel": {"rows_total"},
    "attend_kernel": {"seqs", "splits", "rows_total", "stride_table"},
    "merge_kernel": {"splits"},
    "store_kernel": set(),
}
SHARED_MEMORY = 227 * 1024  # bytes a block may have on Hopper
FEW_LOADS = 8
FEW_BYTES = 32  # spilled: a register or two, outside the loop


def shrink(dtype: str, tiles: Tiles, rank: int) -> Job:
    """Make the job of the shrink kernel."""
    constants = {
        "SLICES": SLICES,
        "MAX_RANK": rank,
        "TILES": -(-rank // tiles.shrink_n),
        "SPLITS": tiles.splits,
        "BLOCK_M": tiles.block_m,
        "BLOCK_N": tiles.shrink_n,
        "BLOCK_K": tiles.shrink_k,
        "UPCAST": False,
        "stride_x_k": 1,
    }
    pointers = {"x": f"*{dtype}", "a": f"*{dtype}", "planes": "*fp32", **TABLES}
    return Job("shrink_kernel", pointers, constants, (), tiles.warps, tiles.shrink_stages)


def expand(dtype: str, tiles: Tiles, rank: int, *, gain: bool, scaled: bool = False) -> Job:
    """Make the job of the expand kernel, with DoRA's gains and a bias, rows' scales, or without."""
    constants = {
        "SLICES": SLICES,
        "FIRST_SLICE": 0,
        "MAX_RANK": rank,
        "SPLITS": tiles.splits,
        "BLOCK_M": tiles.block_m,
        "BLOCK_N": tiles.expand_n,
        "BLOCK_R": tiles.expand_r,
        "PIECE": PIECE,
        "GAIN": gain,
        "BIAS": gain,
        "SCALED": scaled,
        "UPCAST": False,
        "stride_y_column": 1,
    }
    pointers = {
        **dict.fromkeys(("b0", "b1", "b2", "b3", "y", "bias"), f"*{dtype}"),
        **dict.fromkeys(("planes", "scales", "gains", "row_scales"), "*fp32"),
        **TABLES,
        "has_gain": "*i32",
    }
    return Job("expand_kernel", pointers, constants, (), tiles.warps, EXPAND_STAGES)


def attend(
    dtype: str,
    block_m: int,
    *,
    dim: int = 128,
    window: bool = False,
    chunked: bool = False,
    softcap: bool = False,
    sinks: bool = False,
) -> Job:
    """Make the job of the attention kernel."""
    tiles = choose_attention(rows=100 * (block_m > 16), seqs=1, group=4, dim=dim, tall=block_m > 16)
    assert tiles.block_m == block_m
    constants = {
        "GROUP": 4,
        "DIM": dim,
        "PAGE": 16,
        "HAS_WINDOW": window,
        "CHUNKED": chunked,
        "HAS_SOFTCAP": softcap,
        "HAS_SINKS": sinks,
        "BLOCK_M": block_m,
        "BLOCK_N": tiles.block_n,
        "BLOCK_D": max(16, 1 << (dim - 1).bit_length()),
        "UPCAST": False,
    }
    pointers = {
        **dict.fromkeys(("q", "k_cache", "v_cache", "out", "sinks"), f"*{dtype}"),
        **dict.fromkeys(("partial", "stats"), "*fp32"),
        **SEQUENCES,
    }
    floats = ("scale", "softcap")
    return Job(
        "attend_kernel", pointers, constants, floats, tiles.warps, tiles.stages, fusion=False
    )


def merge(dtype: str) -> Job:
    """Make the job of the kernel that adds splits."""
    constants: dict[str, Any] = {"DIM": 128, "BLOCK_D": 128}
    constants |= dict.fromkeys(("HAS_WINDOW", "HAS_SINKS"), True) | {"CHUNKED": False}
    pointers = {
        **SEQUENCES,
        **dict.fromkeys(("partial", "stats"), "*fp32"),
        **dict.fromkeys(("out", "sinks"), f"*{dtype}"),
    }
    return Job("merge_kernel", pointers, constants, warps=1, fusion=False)


def store(dtype: str) -> Job:
    """Make the job of the kernel that fills the cache."""
    pointers = dict.fromkeys(("k", "v", "k_cache", "v_cache"), f"*{dtype}")
    return Job("store_kernel", {**pointers, "slot_mapping": "*i64"}, {"SIZE": 1024, "BLOCK": 1024})


def table_tiles(rows: int, rank: int) -> Tiles:
    """Take what the plan table has for a projection of an 8B model."""
    return choose_tiles(SgmvMode.FAST, rows=rows, in_features=4096, max_rank=rank)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [16, 512])
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_sgmv_compiles_for_hopper(dtype: str, rows: int, tmp_path: Path) -> None:
    """Tensor cores for half types, loads of 16 bytes, and no register spills, at every rank."""
    jobs = []
    for rank in (8, 16, 64, 256):
        tiles = table_tiles(rows, rank)
        jobs += [shrink(dtype, tiles, rank)]
        jobs += [expand(dtype, tiles, rank, gain=gain) for gain in (False, True)]
    jobs += [
        expand(dtype, table_tiles(rows, 16), 16, gain=gain, scaled=True) for gain in (False, True)
    ]
    for job, answer in zip(jobs, compile_all(jobs, tmp_path), strict=True):
        assert answer.dot, job
        assert answer.shared <= SHARED_MEMORY, job
        assert set(answer.any_value) == STEPS[job.kernel]
        assert answer.spilled <= FEW_BYTES, (job, answer)
        assert answer.wide > 0, job
        if dtype != "fp32":
            assert answer.wgmma if job.constants["BLOCK_M"] == 64 else answer.mma, job
            assert answer.narrow == 0, (job, answer)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "block_m"), [("bf16", 16), ("bf16", 64), ("fp32", 16)])
def test_attention_compiles_for_hopper(dtype: str, block_m: int, tmp_path: Path) -> None:
    """Each width of a head; the two kernels that add splits fuse no multiply with its sum."""
    widths = (64, 96, 128, 256) if dtype == "bf16" else (128,)
    jobs = [attend(dtype, block_m, dim=dim) for dim in widths]
    jobs += [attend(dtype, block_m, window=True), merge(dtype), store(dtype)]
    jobs += [attend(dtype, block_m, dim=64, window=True, sinks=True)]  # as GPT-OSS has it
    jobs += [attend(dtype, block_m, dim=256, window=True, softcap=True)]  # as Gemma 2
    jobs += [attend(dtype, block_m, window=True, chunked=True)]  # as Llama 4
    for job, answer in zip(jobs, compile_all(jobs, tmp_path), strict=True):
        assert answer.shared <= SHARED_MEMORY, job
        assert set(answer.any_value) == STEPS[job.kernel]
        if dtype == "bf16":
            assert answer.spilled <= FEW_BYTES, (job, answer)
            assert answer.fused == 0, (job, answer)
            if job.kernel == "attend_kernel":
                assert answer.wgmma if block_m == 64 else answer.mma, job


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_vectors_take_no_tensor_cores(dtype: str, tmp_path: Path) -> None:
    """Blocks below 16 rows have no matrix product, and hold weights where they loaded them.

    Only x, the rows' ids and the result pass through shared memory: far less than a tile of A.
    Weights come 16 bytes a load; of narrow ones some are left for y and a bias, fewer than a
    thread's weights would take.
    """
    jobs = []
    for rows in (1, 2, 4):
        tiles = matrix_vector_tiles(rows, in_features=4096, max_rank=64)
        assert tiles.block_m == rows
        jobs.append(shrink(dtype, tiles, 64))
        jobs += [expand(dtype, tiles, 64, gain=gain) for gain in (False, True)]
        jobs.append(expand(dtype, tiles, 64, gain=False, scaled=True))
    for answer in compile_all(jobs, tmp_path):
        assert not answer.dot
        assert not answer.mma
        assert not answer.wgmma
        assert answer.wide > 0
        assert answer.narrow <= FEW_LOADS
        assert answer.shared <= 4096
        assert answer.spilled <= FEW_BYTES

"""A layer's operations between products compile for a GPU, also where there is none.

See test_compile.py: the jobs here have the arguments that `aril.kernels.fused.launch` gives a
launch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aril.kernels.fused.launch import gate_tiles, head_tiles, norm_tiles
from tests.support.offline_compile import Job, compile_all

if TYPE_CHECKING:
    from pathlib import Path

SHARED_MEMORY = 4096  # bytes: what warps tell each other of a sum


def norm(dtype: str, width: int, *, add: bool) -> Job:
    """Make the job of the kernel of sums and norms."""
    block_m, block_n, warps = norm_tiles(width)
    pointers = dict.fromkeys(("out", "sums", "x", "y", "weight"), f"*{dtype}")
    constants = {"ADD": add, "WIDTH": width, "BLOCK_M": block_m, "BLOCK_N": block_n}
    return Job("norm_kernel", pointers, constants, ("eps", "offset"), warps)


def gate(dtype: str, width: int, *, tanh: bool) -> Job:
    """Make the job of the gate of one product's halves."""
    block_m, block_n, warps = gate_tiles(width)
    pointers = dict.fromkeys(("out", "gates", "up"), f"*{dtype}")
    constants = {"UP": width, "WIDTH": width, "TANH": tanh}
    constants |= {"BLOCK_M": block_m, "BLOCK_N": block_n}
    return Job("gate_kernel", pointers, constants, (), warps)


def place(dtype: str, heads: int, kv_heads: int, dim: int, *, normed: bool) -> Job:
    """Make the job of the kernel that takes heads out of a product."""
    block_m, block_n, warps = head_tiles(dim)
    pointers = dict.fromkeys(
        ("q_out", "k_cache", "v_cache", "rows", "cos", "sin", "q_weight", "k_weight"), f"*{dtype}"
    )
    constants = {"HEADS": heads, "KV_HEADS": kv_heads, "HALF": dim // 2}
    constants |= {"Q_NORM": normed, "K_NORM": normed, "BLOCK_H": block_m, "BLOCK_D": block_n}
    floats = ("q_eps", "q_offset", "k_eps", "k_offset")
    return Job("place_kernel", {**pointers, "places": "*i64"}, constants, floats, warps)


def rotate(dtype: str, heads: int, dim: int) -> Job:
    """Make the job of a rotation by itself."""
    block_m, block_n, warps = head_tiles(dim)
    pointers = dict.fromkeys(("out", "x", "cos", "sin"), f"*{dtype}")
    constants = {"HEADS": heads, "HALF": dim // 2, "BLOCK_H": block_m, "BLOCK_D": block_n}
    return Job("rotate_kernel", pointers, constants, (), warps)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_operations_between_products_compile_for_hopper(dtype: str, tmp_path: Path) -> None:
    """At the sizes of models from 135M to 70B: wide loads and no spills.

    What is left of narrow ones are angles and weights of a head, that all heads of a program share.
    """
    jobs = [norm(dtype, width, add=add) for width in (576, 4096, 8192) for add in (False, True)]
    jobs += [gate(dtype, width, tanh=tanh) for width in (1536, 14336) for tanh in (False, True)]
    for heads, kv_heads, dim in ((9, 3, 64), (32, 8, 128), (32, 32, 96), (64, 8, 128), (8, 4, 256)):
        jobs += [place(dtype, heads, kv_heads, dim, normed=normed) for normed in (False, True)]
        jobs += [rotate(dtype, heads, dim)]
    for job, answer in zip(jobs, compile_all(jobs, tmp_path), strict=True):
        assert answer.shared <= SHARED_MEMORY, job
        assert answer.any_value == ["rows_total"]  # all that changes from step to step
        assert answer.spilled == 0, (job, answer)
        assert answer.wide > 0, (job, answer)
        shared = 12 if "HALF" in job.constants else 0  # by queries and keys: of halves of 3 vectors
        assert answer.narrow <= shared, (job, answer)

"""The Triton kernels compile for a GPU, also where there is none.

The interpreter accepts what the compiler refuses (untyped loop variables, tiles below the
hardware's least, nested returns), so each kernel is compiled to Hopper machine code here, in a
process of its own because the interpreter is chosen at import.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.sgmv.tiles import Tiles, matrix_vector_tiles

SCRIPT = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from kernels.attention.store import store_kernel
from kernels.attention.unified import attend_kernel, merge_kernel
from kernels.sgmv.expand import expand_kernel
from kernels.sgmv.shrink import shrink_kernel

kernels = {k.fn.__name__: k for k in
           (attend_kernel, merge_kernel, store_kernel, expand_kernel, shrink_kernel)}
answers = []
for name, pointers, constants, floats, stages in json.load(sys.stdin):
    kernel = kernels[name]
    signature = {n: "constexpr" if n in constants else pointers.get(n) or
                 ("fp32" if n in floats else "i32") for n in kernel.arg_names}
    values = {(kernel.arg_names.index(n),): v for n, v in constants.items()}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(kernel.arg_names)
               if signature[n].startswith("*") or n.startswith("stride")
               or n in ("in_features", "split_k")}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=aligned)
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32),
                            options={"num_warps": 4, "num_stages": stages})
    assert len(binary.asm["cubin"]) > 0
    ptx = binary.asm["ptx"]
    answers.append({"mma": "mma.sync" in ptx, "wgmma": "wgmma" in ptx,
                    "dot": "tt.dot" in binary.asm["ttir"], "wide": "ld.global.v4.b32" in ptx,
                    "narrow": ptx.count("ld.global.b16"), "shared": binary.metadata.shared})
json.dump(answers, sys.stdout)
"""

TABLES = {"ranks": "*i32", "block_rows": "*i32", "block_slots": "*i32"}
SEQUENCES = {"cu_q": "*i32", "kv_lens": "*i32"}
SGMV = {"SLICES": 3, "MAX_RANK": 64, "SPLITS": 8, "UPCAST": False}
MATRIX_TILES = Tiles(
    block_m=16, shrink_n=32, shrink_k=64, splits=8, expand_n=64, expand_r=64, warps=4,
    shrink_stages=3,
)  # fmt: skip
SHARED_MEMORY = 227 * 1024  # bytes a block may have on Hopper


def shrink(one: str, tiles: Tiles) -> tuple[object, ...]:
    """Make the job of the shrink kernel."""
    sizes = {"BLOCK_M": tiles.block_m, "BLOCK_N": tiles.shrink_n, "BLOCK_K": tiles.shrink_k}
    return (
        "shrink_kernel",
        {"x": one, "a": one, "planes": "*fp32", **TABLES},
        {**SGMV, "TILES": SGMV["MAX_RANK"] // tiles.shrink_n, **sizes},
        [],
        tiles.shrink_stages,
    )


def expand(one: str, tiles: Tiles, *, gain: bool) -> tuple[object, ...]:
    """Make the job of the expand kernel, with DoRA's gains and a bias or without."""
    floats = dict.fromkeys(("planes", "scales", "gains"), "*fp32")
    sizes = {"BLOCK_M": tiles.block_m, "BLOCK_N": tiles.expand_n, "BLOCK_R": tiles.expand_r}
    return (
        "expand_kernel",
        {**dict.fromkeys(("b0", "b1", "b2", "b3", "y", "bias"), one), **floats, **TABLES}
        | {"has_gain": "*i32"},
        {**SGMV, "FIRST_SLICE": 0, **sizes, "PIECE": 1 if tiles.block_m >= 16 else 8}
        | {"GAIN": gain, "BIAS": gain},
        [],
        1,
    )


def jobs(dtype: str, block_m: int) -> list[tuple[object, ...]]:
    """Every kernel at the tiles of the plan tables, for one type and block height."""
    one = f"*{dtype}"
    stages = 2 if block_m == 16 else 1
    tiles = MATRIX_TILES._replace(block_m=block_m)
    attend = dict.fromkeys(("q", "k_cache", "v_cache", "out"), one)
    floats = dict.fromkeys(("partial", "stats"), "*fp32")
    return [
        shrink(one, tiles),
        expand(one, tiles, gain=True),
        (
            "attend_kernel",
            {**attend, **floats, **SEQUENCES, "block_table": "*i32"},
            {"GROUP": 4, "DIM": 128, "PAGE": 16, "SPLIT": 512, "SPLITS": 16, "HAS_WINDOW": True}
            | {"BLOCK_M": block_m, "BLOCK_N": 64, "BLOCK_D": 128, "UPCAST": False},
            ["scale"],
            stages,
        ),
        (
            "merge_kernel",
            {**floats, **SEQUENCES, "out": one},
            {"DIM": 128, "SPLIT": 512, "SPLITS": 16, "HAS_WINDOW": True, "BLOCK_D": 128},
            [],
            1,
        ),
        (
            "store_kernel",
            {**dict.fromkeys(("k", "v", "k_cache", "v_cache"), one), "slot_mapping": "*i64"},
            {"SIZE": 1024, "BLOCK": 1024},
            [],
            1,
        ),
        expand(one, tiles, gain=False),
    ]


def compiled(work: list[tuple[object, ...]], cache: Path) -> list[dict[str, int]]:
    """Compile in a process whose Triton is no interpreter; say what came out."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(cache)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(work),
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
        env=environment,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    answers: list[dict[str, int]] = json.loads(done.stdout)
    assert len(answers) == len(work)
    return answers


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "block_m"), [("bf16", 16), ("bf16", 64), ("fp32", 16)])
def test_every_kernel_compiles_for_hopper(dtype: str, block_m: int, tmp_path: Path) -> None:
    """Machine code comes out, half precision runs on tensor cores, and shared memory suffices."""
    shrunk, scaled, attend, *_, plain = answers = compiled(jobs(dtype, block_m), tmp_path)
    assert all(answer["shared"] <= SHARED_MEMORY for answer in answers)
    assert all(answer["dot"] for answer in (shrunk, scaled, attend, plain))
    if dtype == "bf16":
        unit = "wgmma" if block_m == 64 else "mma"
        assert shrunk[unit]
        assert scaled[unit]
        assert plain[unit]
        assert attend[unit]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_vectors_take_no_tensor_cores(dtype: str, tmp_path: Path) -> None:
    """Blocks below 16 rows have no matrix product, and hold weights where they loaded them.

    Only x, the rows' ids and the result pass through shared memory: far less than a tile of A.
    Weights come 16 bytes a load; what is left of narrow loads are y, bias and some of x.
    """
    one = f"*{dtype}"
    work = []
    for rows in (1, 2, 4):
        tiles = matrix_vector_tiles(rows, in_features=4096, max_rank=SGMV["MAX_RANK"])
        assert tiles.block_m == rows
        work += [shrink(one, tiles), *(expand(one, tiles, gain=gain) for gain in (False, True))]
    for answer in compiled(work, tmp_path):
        assert not answer["dot"]
        assert not answer["mma"]
        assert not answer["wgmma"]
        assert answer["wide"]
        assert answer["narrow"] <= 16
        assert answer["shared"] <= 4096

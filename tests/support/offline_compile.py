"""Compiles Triton kernels for Hopper where there is no GPU, and says what came out.

Run as a program it reads jobs on its standard input: a process of its own, because Triton's
interpreter is chosen when a kernel is imported.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PTXAS = "backends/nvidia/bin/ptxas"
# Numbers that are any from one step to the next; all others are whole sixteens in the shapes here.
ANY = ("seqs", "splits", "rows_total", "stride_table", "tiles", "window", "heads")


@dataclass(frozen=True)
class Job:
    """One kernel as it is launched: types of its pointers, constants, options."""

    kernel: str
    pointers: dict[str, str]
    constants: dict[str, Any]
    floats: tuple[str, ...] = ()
    warps: int = 4
    stages: int = 1
    fusion: bool = True


@dataclass(frozen=True)
class Compiled:
    """What the compiler made of a job."""

    kernel: str
    dot: bool  # a matrix product in Triton's own code
    mma: bool  # tensor cores by warp
    wgmma: bool  # tensor cores by warp group
    wide: int  # loads of 16 bytes, copies to shared memory among them
    narrow: int  # loads of 2 bytes
    shared: int  # bytes of a block
    registers: int
    spilled: int  # bytes
    fused: int  # multiply-adds of the plain cores
    any_value: list[str]  # arguments whose values never ask for another binary


def compile_all(jobs: list[Job], cache: Path) -> list[Compiled]:
    """Compile the jobs for sm_90, in a process whose Triton is no interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([asdict(job) for job in jobs]),
        capture_output=True,
        check=False,
        cwd=ROOT,
        env=environment,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [Compiled(**answer) for answer in json.loads(done.stdout)]


def _compile(job: Job) -> Compiled:
    import triton  # noqa: PLC0415 - in the other process only
    from triton.backends.compiler import GPUTarget  # noqa: PLC0415
    from triton.compiler import ASTSource  # noqa: PLC0415

    kernel = _kernels()[job.kernel]
    names = kernel.arg_names
    types = {
        name: "constexpr"
        if name in job.constants
        else job.pointers.get(name) or ("fp32" if name in job.floats else "i32")
        for name in names
    }
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, name in enumerate(names)
        if types[name] not in {"constexpr", "fp32"} and name not in ANY
    }
    values = {(names.index(name),): value for name, value in job.constants.items()}
    source = ASTSource(fn=kernel, signature=types, constexprs=values, attrs=aligned)
    options = {"num_warps": job.warps, "num_stages": job.stages, "enable_fp_fusion": job.fusion}
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx = binary.asm["ptx"]
    registers, spilled = _assembled(ptx, Path(triton.__file__).parent / PTXAS)
    return Compiled(
        job.kernel,
        dot="tt.dot" in binary.asm["ttir"],
        mma="mma.sync" in ptx,
        wgmma="wgmma" in ptx,
        wide=ptx.count("ld.global.v4.b32") + len(re.findall(r"cp\.async\S* .*0x10", ptx)),
        narrow=ptx.count("ld.global.b16"),
        shared=binary.metadata.shared,
        registers=registers,
        spilled=spilled,
        fused=ptx.count("fma.rn.f32"),
        any_value=[each.name for each in kernel.params if each.do_not_specialize],
    )


def _assembled(ptx: str, ptxas: Path) -> tuple[int, int]:
    """Assemble once more, verbosely: registers of a thread, bytes that had no room in them."""
    target = re.search(r"\.target (\w+)", ptx)
    assert target is not None
    done = subprocess.run(
        [ptxas, "-v", f"--gpu-name={target[1]}", "-o", os.devnull, "/dev/stdin"],
        input=ptx,
        capture_output=True,
        check=True,
        text=True,
    )
    registers = re.search(r"Used (\d+) registers", done.stderr)
    spilled = re.search(r"(\d+) bytes spill stores", done.stderr)
    assert registers is not None
    assert spilled is not None
    return int(registers[1]), int(spilled[1])


def _kernels() -> dict[str, Any]:
    from aril.kernels.attention.merge import merge_kernel  # noqa: PLC0415 - as above
    from aril.kernels.attention.store import store_kernel  # noqa: PLC0415
    from aril.kernels.attention.unified import attend_kernel  # noqa: PLC0415
    from aril.kernels.fused.gates import gate_kernel  # noqa: PLC0415
    from aril.kernels.fused.heads import place_kernel, rotate_kernel  # noqa: PLC0415
    from aril.kernels.fused.norms import norm_kernel  # noqa: PLC0415
    from aril.kernels.sgmv.expand import expand_kernel  # noqa: PLC0415
    from aril.kernels.sgmv.shrink import shrink_kernel  # noqa: PLC0415

    kernels = (
        *(attend_kernel, merge_kernel, store_kernel, expand_kernel, shrink_kernel),
        *(gate_kernel, place_kernel, rotate_kernel, norm_kernel),
    )
    return {kernel.fn.__name__: kernel for kernel in kernels}


if __name__ == "__main__":
    json.dump([asdict(_compile(Job(**job))) for job in json.load(sys.stdin)], sys.stdout)

"""How native kernels are compiled and run: each task once, types rounded as torch rounds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from numba import carray

from aril.kernels.backend import uses_native
from aril.kernels.native import machine_code as module
from aril.kernels.native import openmp
from aril.kernels.native.kernel import WORTH_RELEASING, WORTH_WAKING, Kernel, record
from aril.kernels.native.scalars import compiled, elements, exp, int64s, load, store, take, untyped

OPERANDS = record("out", "x", "factor", real=("factor",))
COUNTED = record("counts")


def _scale(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), OPERANDS)[0]
    out, x = elements(o.out, pointer), elements(o.x, pointer)
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        store(out, task, load(x, task) * np.float32(o.factor))


def _count(pointer: Any) -> None:
    o = carray(untyped(pointer), (1,), COUNTED)[0]
    counts = int64s(o.counts)
    while True:
        task = take(pointer)
        if task >= o.tasks:
            return
        counts[task] += 1


SCALE = Kernel(_scale, OPERANDS)
COUNT = Kernel(_count, COUNTED)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_number_of_a_half_type_comes_back(dtype: torch.dtype) -> None:
    """All 65,536 of them, NaN as NaN."""
    x = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(dtype)
    out = torch.empty_like(x)
    SCALE(dtype, len(x), 1, out.data_ptr(), x.data_ptr(), 1.0)
    assert torch.equal(out.isnan(), x.isnan())
    assert torch.equal(out[~x.isnan()].view(torch.int16), x[~x.isnan()].view(torch.int16))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_numbers_are_rounded_as_torch_rounds_them(dtype: torch.dtype) -> None:
    """To the nearest, ties to even, and past the largest to infinity."""
    x = torch.arange(0, 1 << 16).to(torch.int16).view(dtype)
    x = x[x.isfinite()]
    for factor in (1.00390625, 0.3, 1.5, 1e-3):
        out = torch.empty_like(x)
        SCALE(dtype, len(x), 1, out.data_ptr(), x.data_ptr(), factor)
        expected = (x.float() * torch.tensor(factor, dtype=torch.float32)).to(dtype)
        assert torch.equal(out, expected)


@pytest.mark.parametrize("work", [1, WORTH_WAKING, WORTH_RELEASING])
def test_each_task_is_done_once(work: int) -> None:
    """Alone, by all of torch's threads, and without the GIL."""
    for tasks in (0, 1, 2, 50_000):
        counts = torch.zeros(tasks, dtype=torch.int64)
        COUNT(torch.float32, tasks, work, counts.data_ptr())
        assert bool((counts == 1).all())


def test_without_such_threads_the_caller_does_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system whose torch has another OpenMP runtime."""
    monkeypatch.setattr(openmp, "keeping_gil", None)
    counts = torch.zeros(1000, dtype=torch.int64)
    COUNT(torch.float32, 1000, WORTH_WAKING, counts.data_ptr())
    assert bool((counts == 1).all())


def test_the_exponential() -> None:
    """Within a unit of the last place of float32 for all that a softmax asks; NaN stays."""

    @compiled
    def each(x: Any, out: Any) -> None:
        for i in range(len(x)):
            out[i] = exp(x[i])

    x = np.concatenate([-np.logspace(-8, np.log10(87), 100_000), [0.0]]).astype(np.float32)
    out = np.empty_like(x)
    each(x, out)
    expected = np.exp(x.astype(np.float64))
    assert np.abs(out - expected).max() <= np.spacing(expected.astype(np.float32)).max()
    assert (np.abs(out - expected) / np.spacing(expected.astype(np.float32))).max() < 1.5
    edges = np.array([np.nan, -np.inf, -1e30], np.float32)
    each(edges, out[:3])
    assert np.isnan(out[0])
    assert bool((out[1:3] < 2e-38).all())


def test_what_can_be_served() -> None:
    """Half types and float32 on a CPU, where Numba is there; asked for in vain, it says so."""
    cpu = torch.device("cpu")
    assert uses_native("auto", cpu, torch.bfloat16)
    assert not uses_native("auto", cpu, torch.float64)
    assert not uses_native("torch", cpu, torch.float32)
    assert not uses_native("auto", torch.device("cuda"), torch.float32)
    with pytest.raises(ValueError, match="float64"):
        uses_native("native", cpu, torch.float64)
    with pytest.raises(ValueError, match="backend must be"):
        uses_native("numpy", cpu, torch.float32)


def test_machine_code_is_kept_by_its_sources() -> None:
    """Numba looks at a kernel's own file only: the folder's name stands for the others."""
    folder = Path(numba.config.CACHE_DIR)
    assert folder.is_absolute()
    assert folder.name.startswith("kernels-")
    assert module._kept == folder.is_dir()


def test_each_type_has_an_index_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers of other types that start together cannot mix up what they keep."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "_kept", True)
    counts = torch.zeros(5, dtype=torch.int64)
    kernel = Kernel(_count, COUNTED)
    for dtype in (torch.float32, torch.bfloat16):
        kernel(dtype, 5, 1, counts.data_ptr())
    assert str(tmp_path) == numba.config.CACHE_DIR
    for name in ("float32", "bfloat16"):
        assert len([*(tmp_path / name).rglob("*.nbi")]) == 1
        assert len([*(tmp_path / name).rglob("*.nbc")]) == 1


@pytest.mark.parametrize("ending", ["nbi", "nbc"])
@pytest.mark.parametrize("left", [0, 40])
def test_damaged_machine_code_is_made_anew(
    ending: str, left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut leaves files empty or cut off: the start does not fail for it, and mends them."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(module, "_kept", True)

    def run() -> None:
        counts = torch.zeros(5, dtype=torch.int64)
        Kernel(_count, COUNTED)(torch.float32, 5, 1, counts.data_ptr())
        assert counts.tolist() == [1] * 5

    run()
    (file,) = tmp_path.rglob(f"*.{ending}")
    whole = file.stat().st_size
    file.write_bytes(file.read_bytes()[:left])
    run()
    run()
    assert file.stat().st_size == whole


def test_a_worker_without_a_writable_place_compiles(tmp_path: Path) -> None:
    """A read-only file system costs the first step a second, not the start."""
    (tmp_path / "file").touch()
    code = (
        "import torch; from aril.kernels.native import rms_norm;"
        "print(rms_norm(torch.full((1, 4), 2.0), torch.ones(4), 0.0).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"XDG_CACHE_HOME": str(tmp_path / "file"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[[1.0, 1.0, 1.0, 1.0]]"
    assert not [*Path(module.__file__).parent.rglob("*.nb?")]  # an older version's could be found

"""The tests that come before anything is timed, on the device, with few packages needed.

The machine that has the GPU may have no more than torch, Triton and pytest. What needs more is run
where that is there, and named where it isn't.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Suite(NamedTuple):
    """Some of the project's tests, and what they need beside pytest."""

    paths: tuple[str, ...]
    needs: tuple[str, ...] = ()
    options: tuple[str, ...] = ("--noconftest",)


FIRST = Suite(("tests/benchmarks/test_gpu_kernels.py",))
# The same tests that run in the interpreter elsewhere, at the sizes of real layers; their own
# conftest fills memory with NaN, the one above it wants what only developers have.
KERNELS = Suite(
    ("tests/kernels",), ("hypothesis",), ("--confcutdir=tests/kernels", "-m", "not slow")
)
ENGINE = Suite(
    (
        "tests/benchmarks/test_gpu_engine.py",
        "tests/worker/engine/test_decode_graphs.py",
        "tests/worker/engine/test_launches.py",  # layers are led there, or it counts others
    ),
    ("transformers", "tokenizers", "pydantic", "msgpack", "safetensors"),
)


def check_kernels(*, on_gpu: bool) -> int:
    """Run what must pass before a kernel is timed; return pytest's first status that is not 0.

    A rehearsal runs the first suite only: the others run on a CPU with the project's tests.
    """
    return _run_all((FIRST, KERNELS) if on_gpu else (FIRST,))


def check_engine(*, on_gpu: bool) -> int:
    """Run what must pass before the whole engine is timed, likewise."""
    return _run_all((ENGINE,) if on_gpu else ())


def _run_all(suites: tuple[Suite, ...]) -> int:
    if importlib.util.find_spec("pytest") is None:
        print("pytest is missing: correctness cannot be shown", file=sys.stderr)
        return 1
    for suite in suites:
        missing = [name for name in suite.needs if importlib.util.find_spec(name) is None]
        if missing:
            print(f"{', '.join(suite.paths)}: left out, for want of {', '.join(missing)}")
        elif (status := _run(suite)) != 0:
            return status
    return 0


def _run(suite: Suite) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    command += ["-c", os.devnull, f"--rootdir={ROOT}", "--import-mode=importlib"]
    command += [*suite.options, *suite.paths]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603

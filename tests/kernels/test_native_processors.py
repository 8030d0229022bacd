"""Native kernels as a processor without AVX-512 would have them."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from llvmlite import binding

if TYPE_CHECKING:
    from pathlib import Path

FILES = ("test_native_tiles.py", "test_row_tasks.py", "test_attention_native.py")
CHOSEN = "not torch"

# What Numba compiles for, and what tiles are chosen by, is asked of one function.
PROGRAM = """
import sys
import pytest
from llvmlite import binding
own = binding.get_host_cpu_features
def fewer():
    found = own()
    found.update({name: False for name in found if name.startswith(("avx512", "avx10"))})
    return found
binding.get_host_cpu_features = fewer
from aril.kernels.native.tiles import LANES
assert LANES == 8, LANES
sys.exit(pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not binding.get_host_cpu_features().get("avx512f"), reason="this processor is one"
)
def test_shorter_vectors(tmp_path: Path) -> None:
    """Tiles, LoRA and attention, in code that has no longer ones."""
    files = [f"tests/kernels/{name}" for name in FILES]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *files, "-k", CHOSEN],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    assert " passed" in ran.stdout

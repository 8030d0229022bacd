#!/usr/bin/env bash
# numpy 2.3.5 (OpenBLAS in its wheel): a row of a float32 product may get other bits at another place.
#
# The same rows in reverse order, times the same matrix: with OpenBLAS's Haswell kernels, which are
# what AVX2 processors without AVX-512 get, some rows differ in their last bits, though shape, layout
# and threads are equal. Blocks of rows are summed in another order than the rows at a block's edge.
# With the AVX-512 kernels all rows keep their bits, so what leans on it passes on one machine and
# fails on the next: tests of batch invariance in Triton's interpreter, whose `tl.dot` is
# `numpy.matmul`, are a case.
#
# Seen with the Haswell kernels, rows that keep their bits:
#   16x16x16 12 of 16; 16x16x64 4 of 16; 22x48x40 2 of 22; 64x64x64 36 of 64
#
# Needs a processor with AVX2. Exit code 0: as described; 1: this has changed; 77: no AVX2 here.
set -euo pipefail
grep -qw avx2 /proc/cpuinfo || { echo "no AVX2 here"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.3.5

OPENBLAS_CORETYPE=Haswell OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" - <<'PYTHON'
import sys

import numpy as np

rng = np.random.default_rng(0)
moved = 0
for m, k, n in (16, 16, 16), (16, 16, 64), (22, 48, 40), (64, 64, 64):
    a = rng.standard_normal((m, k), dtype=np.float32)
    b = rng.standard_normal((k, n), dtype=np.float32)
    there = a @ b
    back = (np.ascontiguousarray(a[::-1]) @ b)[::-1]
    same = sum(x.tobytes() == y.tobytes() for x, y in zip(there, back))
    moved += m - same
    np.testing.assert_allclose(there, back, rtol=0, atol=1e-4)  # in the last bits only
    print(f"{m}x{k}x{n}: {same} of {m} rows keep their bits")
sys.exit(0 if moved else 1)
PYTHON
echo "as described"

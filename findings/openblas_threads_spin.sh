#!/usr/bin/env bash
# numpy 2.3.5 (OpenBLAS, Linux): a process that multiplies now and then takes a core all the time.
#
# A float32 product of 256 x 256 every 5 ms, asleep in between: the thread that asks for it is busy
# for 5 % of the time. OpenBLAS's other thread, which helped with the product, then waits for the
# next one by spinning, and has not stopped when that comes: the process uses a whole core. Whoever
# limits torch's threads and not numpy's loses a core to it, and so does each further process of the
# machine. With OPENBLAS_NUM_THREADS=1 the same products take as long, and 6 % of a core.
#
# Seen (AMD EPYC, 2 cores):  as it is 1.03 cores, with OPENBLAS_NUM_THREADS=1 0.06 cores
#
# Needs two cores. Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.3.5

cat >"$work/now_and_then.py" <<'PYTHON'
import time

import numpy

one = numpy.random.default_rng(0).standard_normal((256, 256)).astype(numpy.float32)
one @ one
began, used = time.perf_counter(), time.process_time()
while time.perf_counter() - began < 3:
    one @ one
    time.sleep(0.005)
print(f"{(time.process_time() - used) / (time.perf_counter() - began):.2f}")
PYTHON
unset OPENBLAS_NUM_THREADS OPENBLAS_THREAD_TIMEOUT OMP_NUM_THREADS
spinning=$("$work/venv/bin/python" "$work/now_and_then.py")
alone=$(OPENBLAS_NUM_THREADS=1 "$work/venv/bin/python" "$work/now_and_then.py")
echo "as it is $spinning cores, with OPENBLAS_NUM_THREADS=1 $alone cores"
if python3 -c "import sys; sys.exit(not ($spinning > 0.5 and $alone < 0.25))"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

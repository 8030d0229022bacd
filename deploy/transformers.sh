#!/usr/bin/env bash
# Runs the tests that meet transformers on other versions of it: the oldest that pyproject.toml
# allows and the newest that the package index has, or those named. Each is put into a folder of its
# own, which goes again; .venv stays as it is.   usage: deploy/transformers.sh [VERSION ...]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

floor=$(sed -n 's/.*"transformers>=\([0-9.]*\)".*/\1/p' pyproject.toml)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# All else stays what it is, but for what each version asks for in another one.
grep -vE '^(transformers|huggingface[-_]hub)==' constraints.txt >"$folder/constraints.txt"

failed=()
if [ $# -eq 0 ]; then set -- "$floor" newest; fi
for version in "$@"; do
  wanted=transformers
  if [ "$version" != newest ]; then wanted+="==$version"; fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --target "$folder/$version" --constraint "$folder/constraints.txt" "$wanted"
  found=$(PYTHONPATH=$folder/$version .venv/bin/python -c \
    'import transformers; print(transformers.__version__, transformers.__file__)')
  case $found in
    *" $folder/"*) echo "transformers ${found%% *}" ;;
    *) echo "not the one that was installed: $found" >&2; exit 1 ;;
  esac
  PYTHONPATH=$folder/$version .venv/bin/pytest -q tests/conformance tests/worker/engine \
    tests/worker/adapters tests/aril/test_check.py tests/docs/test_backbones.py ||
    failed+=("${found%% *}")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "failed with transformers: ${failed[*]}" >&2
  exit 1
fi

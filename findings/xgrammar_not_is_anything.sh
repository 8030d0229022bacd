#!/usr/bin/env bash
# xgrammar 0.2.9: JSON Schema's `not` is taken for no constraint, and so is a `$ref` to elsewhere.
#
# What a schema cannot be compiled to one expects to be refused. `not` is passed over without a word:
# "anything but a string" takes a string, "a string, but not this one" takes this one. A `$ref` to
# another document takes anything too, with a line on stderr and nothing that a program could catch. An
# answer by such a grammar need not validate, so validate it, or look for the two words beforehand.
#
# Seen:  a string is taken by number False, local $ref to number False, not string True, not this string
#   True, foreign $ref True; Python warnings 0
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  xgrammar==0.2.9 transformers==5.23.0 torch==2.11.0 numpy==2.3.5

cat >"$work/takes.py" <<'PYTHON'
import json
import sys
import warnings

import xgrammar

LETTERS = [chr(code) for code in range(32, 127)]
compiler = xgrammar.GrammarCompiler(
    xgrammar.TokenizerInfo([*LETTERS, "</s>"], stop_token_ids=len(LETTERS))
)


def takes(schema, answer):
    """Whether a matcher of the schema takes the whole answer and an end behind it."""
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))
    return matcher.accept_string(answer) and matcher.accept_token(len(LETTERS))


A_STRING = '"a string"'
LOCAL = {"$ref": "#/$defs/number", "$defs": {"number": {"type": "number"}}}
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    plain = takes({"type": "number"}, A_STRING)
    local = takes(LOCAL, A_STRING)
    inverse = takes({"not": {"type": "string"}}, A_STRING)
    beside = takes({"type": "string", "not": {"const": "a string"}}, A_STRING)
    foreign = takes({"$ref": "https://example.org/number.json"}, A_STRING)
print(
    f"a string is taken by number {plain}, local $ref to number {local}, not string {inverse}, "
    f"not this string {beside}, foreign $ref {foreign}; Python warnings {len(told)}"
)
sys.exit(0 if not plain and not local and inverse and beside and foreign and not told else 1)
PYTHON
if "$work/venv/bin/python" "$work/takes.py"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

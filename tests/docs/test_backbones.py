"""The table of backbones names every kind that transformers has, and says of each what is so."""

from __future__ import annotations

import re
from itertools import takewhile

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.support.backbones import BEGIN, DOC, END, kinds, section, serve
from tests.support.marked import between

TABLES = DOC.read_text().partition(BEGIN)[2].partition(END)[0]
# What Python itself says of an argument, an attribute or a type that does not fit.
RAISED = re.compile(r"Error\b|argument: '|positional arg|keyword-only|has no attribute|unexpected")

if found := re.match(r"With transformers ([\d.]+):\n", TABLES):
    MADE_WITH = found[1]
else:
    raise ValueError(f"{DOC} does not tell the version of transformers")
of_this_version = pytest.mark.skipif(
    transformers.__version__ != MADE_WITH, reason=f"the table is of transformers {MADE_WITH}"
)


def table(heading: str) -> dict[str, str]:
    """Read what follows a heading: each kind with what is told of it."""
    lines = TABLES.partition(f"\n| {heading} ")[2].splitlines()[2:]
    rows = (re.match(r"\| `(.+?)` \| (.*) \|$", line) for line in takewhile(str.strip, lines))
    return {row[1]: row[2] for row in rows if row}


def test_the_table_is_of_the_pinned_version() -> None:
    """So what others skip runs on ours. A new pin: python -m tests.support.backbones."""
    pins = (DOC.parents[1] / "constraints.txt").read_text().splitlines()
    assert f"transformers=={MADE_WITH}" in pins


@of_this_version
def test_every_kind_is_in_the_table_once() -> None:
    """A class that came or went with another transformers: python -m tests.support.backbones."""
    rows = re.findall(r"^\| `([^`]+)` \|", TABLES, flags=re.MULTILINE)
    assert sorted(rows) == sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert len(table("served: logits equal")) + len(table("refused")) + len(
        table("not tried")
    ) == len(rows)


def test_no_refusal_is_an_exceptions_text() -> None:
    """Who reads the table learns what a model has or lacks, not where Python stumbled."""
    assert not [row for row in table("refused").items() if RAISED.search(row[1])]
    assert not [row for row in table("not tried").items() if RAISED.search(row[1])]


@of_this_version
@pytest.mark.slow
def test_the_table_is_what_the_engine_does() -> None:
    """Each kind is made, and served or refused as the table says: nothing served is lost unseen."""
    text = DOC.read_text()
    assert between(text, BEGIN, section(serve(kinds())), END) == text


@pytest.mark.skipif(transformers.__version__ == MADE_WITH, reason="the test above is sharper")
@pytest.mark.slow
def test_other_versions_serve_the_same() -> None:
    """What the table serves is served by other versions, too, and refusals are in words."""
    outcomes = {each.kind: each for each in serve(kinds())}
    for made, heading in (("equal", "served: logits equal"), ("refused", "refused")):
        known = table(heading).keys() & outcomes.keys()
        assert known
        assert {kind: outcomes[kind] for kind in known if outcomes[kind].made != made} == {}
    assert [each for each in outcomes.values() if RAISED.search(each.told)] == []

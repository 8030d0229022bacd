"""The table of backbones names every kind that transformers has, and says of each what is so."""

from __future__ import annotations

import re

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tests.support.backbones import BEGIN, DOC, END, kinds, section, serve
from tests.support.marked import between


def test_every_kind_is_in_the_table_once() -> None:
    """A class that came or went with another transformers: python -m tests.support.backbones."""
    made = DOC.read_text().partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| `([^`]+)` \|", made, flags=re.MULTILINE)
    assert sorted(rows) == sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def test_no_refusal_is_an_exceptions_text() -> None:
    """Who reads the table learns what a model has or lacks, not where Python stumbled."""
    made = DOC.read_text().partition(BEGIN)[2].partition(END)[0]
    raised = r"Error:|Error\b|argument: '|positional arg|keyword-only|has no attribute|unexpected"
    assert not re.findall(rf"^.*(?:{raised}).*$", made, flags=re.MULTILINE)


@pytest.mark.slow
def test_the_table_is_what_the_engine_does() -> None:
    """Each kind is made, and served or refused as the table says: nothing served is lost unseen."""
    text = DOC.read_text()
    assert between(text, BEGIN, section(serve(kinds())), END) == text

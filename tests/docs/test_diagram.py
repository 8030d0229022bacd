"""The diagram of a job's life is that of the table."""

from __future__ import annotations

from aril.worker.stages import TABLE
from tests.support.life_diagram import DOC, replaced, section


def test_the_diagram_is_made_from_the_table() -> None:
    """Else: python -m tests.support.life_diagram."""
    text = DOC.read_text()
    assert replaced(text) == text


def test_every_row_is_in_the_diagram() -> None:
    """Each row of the table is a row there, with its stage and what it leads to."""
    rows = [line for line in section().splitlines() if line.count("|") == 6]
    assert len(rows) == 2 + sum(len(events) for events in TABLE.values())

"""Every threat of docs/security.md names the tests that show what stops it, and they are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
LINES: Final = [
    line
    for line in (ROOT / "docs/security.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith(("| threat |", "| --- |"))
]
TEST: Final = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split("|")[1].strip()[:40])
def test_a_threat_names_tests_that_exist(line: str) -> None:
    """The last cell is nothing but tests, at least one."""
    *_, shown_by, _ = line.split("|")
    found = TEST.findall(shown_by)
    assert found
    assert TEST.sub("", shown_by).strip() == ""
    for file, name in found:
        assert re.search(rf"^(async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), name


def test_there_are_threats() -> None:
    """A page that lost its tables would pass all of the above."""
    assert len(LINES) > 20

"""The reference is what the code says, and says something of everything."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from aril.gateway.metrics import FAMILIES
from aril.gateway.settings import GatewaySettings
from aril.schemas import ErrorCode
from aril.worker.observe.metrics import Metrics
from aril.worker.settings import WorkerSettings
from tests.support import reference

if TYPE_CHECKING:
    from pathlib import Path


def rows(page: str) -> list[list[str]]:
    """Return the cells of all rows that begin with a name in backticks."""
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in page.splitlines()
        if line.startswith("| `")
    ]


def test_the_pages_are_current() -> None:
    """Else: make reference."""
    for path, text in reference.pages().items():
        assert path.read_text() == text


def metric_names() -> list[str]:
    """Return the names of all families, a worker's and then a gateway's."""
    return [each.name for each in Metrics().families.made] + [each.name for each in FAMILIES]


@pytest.mark.parametrize("page", ["metrics_page", "settings_page", "errors_page"])
def test_no_thing_is_without_words(page: str) -> None:
    """Each row has a meaning, a sentence that ends."""
    found = rows(getattr(reference, page)())
    assert found
    assert len({len(row) for row in found if len(row) > 2}) == 1
    assert all(row[-1].endswith((".", "`")) for row in found)


def test_everything_is_listed_once() -> None:
    """Every family, every setting, every code."""

    def names(page: str) -> list[str]:
        return [row[0].strip("`") for row in rows(page)]

    assert names(reference.metrics_page()) == metric_names()
    own = [name for name in GatewaySettings.model_fields if name.startswith("gateway_")]
    settings = [f"ARIL_{name.upper()}" for name in (*WorkerSettings.model_fields, *own)]
    assert names(reference.settings_page())[: len(settings)] == settings
    assert names(reference.errors_page()) == [code.value for code in ErrorCode]


def test_a_stale_page_is_told_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check fails, writing mends it."""
    monkeypatch.setattr(reference, "FOLDER", tmp_path / "docs" / "reference")
    (tmp_path / "docs").mkdir()
    assert reference.main(["--check"]) == 1
    assert "make reference" in capsys.readouterr().out
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    page = tmp_path / "docs" / "reference" / "errors.md"
    page.write_text(page.read_text() + "x")
    assert reference.main(["--check"]) == 1


def test_documents_name_only_metrics_that_there_are() -> None:
    """A renamed family must not live on in a page that people copy queries from."""
    known = {*metric_names()}
    root = reference.FOLDER.parents[1]
    pages = [*(root / "docs").rglob("*.md"), root / "README.md", root / "CHANGELOG.md"]
    named = {
        (page.name, name)
        for page in pages
        for name in re.findall(r"`(aril_[a-z0-9_]+)(?:\{[^`]*)?`", page.read_text())
    }
    assert named
    assert {(page, name) for page, name in named if name not in known} == set()

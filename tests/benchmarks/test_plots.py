"""Pictures come from the CSVs alone: the same figures give the same bytes, none gives none."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from benchmarks.plots import attention, memory, peers, scale, tables
from benchmarks.plots.__main__ import DOCS, IMAGES, PLOTS, draw_all
from benchmarks.record import RESULTS

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.plots.__main__ import Plot

PNG = b"\x89PNG\r\n\x1a\n"
NEEDS = {attention: "attention_gpu.csv", peers: "sgmv_gpu.csv"}  # not there until a GPU was
LEAST_BYTES = 10_000  # an empty pair of axes is smaller


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__.rpartition(".")[2])
def test_a_picture_is_drawn_from_the_committed_figures(plot: Plot, tmp_path: Path) -> None:
    """Every plot draws from benchmarks/results/, twice to the same bytes."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    needed = NEEDS.get(plot)  # type: ignore[call-overload]
    if needed is not None and not (RESULTS / needed).exists():
        with pytest.raises(FileNotFoundError, match=needed):
            plot.draw(RESULTS, first)
        return
    files = plot.draw(RESULTS, first)
    again = plot.draw(RESULTS, second)
    assert files
    assert [file.name for file in files] == [file.name for file in again]
    for one, other in zip(files, again, strict=True):
        content = one.read_bytes()
        assert one.parent == first
        assert content.startswith(PNG)
        assert len(content) > LEAST_BYTES
        assert content == other.read_bytes()


def test_a_picture_follows_its_figures(tmp_path: Path) -> None:
    """Other figures in the CSV make another picture."""
    lines = (RESULTS / "scale.csv").read_text().splitlines(keepends=True)
    (tmp_path / "scale.csv").write_text(
        "".join(line for line in lines if "tokens/s,4," not in line)
    )
    (before,) = scale.draw(RESULTS, tmp_path)
    content = before.read_bytes()
    (after,) = scale.draw(tmp_path, tmp_path)
    assert after == before
    assert after.read_bytes() != content


def test_a_missing_table_is_skipped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a CSV is not there, one line says so and the other pictures are drawn."""
    monkeypatch.setattr("benchmarks.plots.__main__.PLOTS", (memory, scale))
    shutil.copy(RESULTS / "scale.csv", tmp_path)
    images = tmp_path / "images"
    assert draw_all(tmp_path, images) == [images / "scale.png"]
    told = capsys.readouterr().out.splitlines()
    assert told == ["memory: skipped, there is no memory.csv", "scale: scale.png"]


def test_the_tables_in_the_docs_are_those_of_the_figures() -> None:
    """`make plots` writes them: nobody changes a figure in one place only."""
    text = (DOCS / "sgmv.md").read_text(encoding="utf-8")
    assert tables.filled(text, RESULTS, IMAGES) == text

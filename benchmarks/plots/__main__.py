"""Draw every picture again, and write the tables that come from the same figures.

    python -m benchmarks.plots

Each module of this package draws the pictures of one question. They read benchmarks/results/ and
write docs/images/; the same CSVs make the same bytes. A picture whose CSV is not there is left out.
`tables` writes those of docs/sgmv.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from benchmarks.plots import (
    attention,
    cpu_engine,
    crash,
    fairness,
    memory,
    peers,
    protocol_cost,
    roofline,
    scale,
    segments,
    tables,
)
from benchmarks.plots import bytes as moved_bytes
from benchmarks.record import RESULTS

DOCS = Path(__file__).parents[2] / "docs"
IMAGES = DOCS / "images"


class Plot(Protocol):
    """What a module of this package offers."""

    __name__: str

    def draw(self, results: Path, out: Path) -> list[Path]:
        """Draw from the CSVs in ``results`` into the folder ``out``; return the new files.

        Raises FileNotFoundError where a CSV is missing.
        """


PLOTS: tuple[Plot, ...] = (
    attention,
    moved_bytes,
    cpu_engine,
    crash,
    fairness,
    memory,
    peers,
    protocol_cost,
    roofline,
    scale,
    segments,
)


def draw_all(results: Path, out: Path) -> list[Path]:
    """Draw what there are figures for; say in one line what was drawn, or why not."""
    out.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []
    for plot in PLOTS:
        name = plot.__name__.rpartition(".")[2]
        try:
            files = plot.draw(results, out)
        except FileNotFoundError as error:
            print(f"{name}: skipped, there is no {Path(error.filename).name}")
            continue
        print(f"{name}: {', '.join(file.name for file in files)}")
        drawn += files
    return drawn


if __name__ == "__main__":
    draw_all(RESULTS, IMAGES)
    tables.write(RESULTS, DOCS / "sgmv.md", IMAGES)

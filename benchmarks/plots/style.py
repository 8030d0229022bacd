"""How all pictures look, and how they are written so that the same figures give the same bytes."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from matplotlib.axes import Axes

# Okabe and Ito, "Color universal design" (2008): told apart with any kind of colour blindness.
BLACK = "#000000"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
RED = "#D55E00"
PINK = "#CC79A7"
COLOURS = (BLUE, RED, GREEN, ORANGE, SKY, PINK, BLACK)  # in this order; yellow is weak on white
GREY = "#7F7F7F"  # limits, goals and notes

INCHES = 8.0  # across: 800 px at a page's usual 100 px an inch
DOTS_PER_INCH = 200  # twice that, for screens with two dots a pixel

mpl.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
        "font.size": 10,
        "grid.color": "#E0E0E0",
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "savefig.dpi": DOTS_PER_INCH,
    }
)


class Span(NamedTuple):
    """A figure of a CSV in the form of `benchmarks.record.Row`."""

    p50: float
    p20: float
    p80: float


def whiskers(spans: Iterable[Span]) -> list[list[float]]:
    """Return how far p20 lies below each p50 and p80 above it, as matplotlib takes errors."""
    found = list(spans)
    return [[each.p50 - each.p20 for each in found], [each.p80 - each.p50 for each in found]]


def read(path: Path) -> list[dict[str, str]]:
    """Return a CSV's rows. Raises FileNotFoundError."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def spans(rows: list[dict[str, str]], provider: str, metric: str) -> dict[float, Span]:
    """Return one provider's figures of a metric, by x. Raises ValueError where there is none."""
    found = {
        float(row["x"]): Span(float(row["p50"]), float(row["p20"]), float(row["p80"]))
        for row in rows
        if (row["provider"], row["metric"]) == (provider, metric)
    }
    if not found:
        raise ValueError(f"the CSV has no {metric!r} of {provider!r}")
    return found


def origin(row: dict[str, str]) -> str:
    """Say where and when a figure was measured."""
    return f"{row['device']}, {row['date']}"


def figure(height: float = 4.0, *, note: str = "") -> tuple[Figure, Axes]:
    """Return a picture of the common width, ``height`` inches high, with a note at its foot."""
    picture = Figure(figsize=(INCHES, height), layout="constrained")
    if note:
        picture.supxlabel(note, x=0.99, ha="right", fontsize=8, color=GREY)
    return picture, picture.subplots()


def save(picture: Figure, out: Path, name: str) -> Path:
    """Write ``name``.png without the writer's version and date; return its path."""
    path = out / f"{name}.png"
    picture.savefig(path, metadata={"Software": None})
    return path

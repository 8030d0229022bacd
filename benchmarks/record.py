"""The one form in which measurements are kept.

A row is one figure: what was asked, which way of doing it, at which size, its median and the 20th
and 80th percentile over repetitions, and all that a reader needs to judge it.
"""

from __future__ import annotations

import csv
import datetime as dt
import os
import platform
import statistics
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

RESULTS = Path(__file__).parent / "results"
FIGURES = ("p50", "p20", "p80")


@cache
def device() -> str:
    """Name the processor that this runs on, and how many cores may be used."""
    cores = len(os.sched_getaffinity(0))
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {cores} cores"


@cache
def versions() -> str:
    """Name the versions that matter."""
    names = ("torch", "transformers", "aiokafka")
    return " ".join(
        [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)]
    )


@dataclass(frozen=True)
class Row:
    """One figure."""

    question: str
    provider: str
    metric: str
    x: str
    p50: float
    p20: float
    p80: float
    unit: str
    config: str
    device: str = field(default_factory=device)
    versions: str = field(default_factory=versions)
    date: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).date().isoformat())

    @classmethod
    def of(
        cls,
        samples: Sequence[float],
        *,
        question: str,
        provider: str,
        metric: str,
        x: object,
        unit: str,
        config: str,
        **origin: str,
    ) -> Row:
        """Summarise repetitions of one figure; `origin` is device and versions, if not here."""
        ordered = sorted(samples)

        def share(part: float) -> float:
            return ordered[min(len(ordered) - 1, round(part * (len(ordered) - 1)))]

        return cls(
            question=question,
            provider=provider,
            metric=metric,
            x=str(x),
            p50=statistics.median(ordered),
            p20=share(0.2),
            p80=share(0.8),
            unit=unit,
            config=config,
            **origin,
        )


def ratios(own: Sequence[float], other: Sequence[float]) -> list[float]:
    """Divide figures of the same repetitions."""
    return [one / another for one, another in zip(own, other, strict=True)]


def write(name: str, rows: Iterable[Row], folder: Path = RESULTS) -> Path:
    """Replace a question's CSV with these rows, at once: a killed run leaves the old or the new."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.csv"
    part = path.with_suffix(".part")
    with part.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([each.name for each in fields(Row)])
        writer.writerows(map(_line, rows))
    return part.replace(path)


def _line(row: Row) -> list[str]:
    named = vars(row)
    return [
        f"{named[each.name]:.6g}" if each.name in FIGURES else named[each.name]
        for each in fields(Row)
    ]


def read(name: str, folder: Path = RESULTS) -> list[Row]:
    """Return a question's rows as they were written; none where there is no CSV."""
    path = folder / f"{name}.csv"
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            Row(**row | {key: float(row[key]) for key in FIGURES})  # type: ignore[arg-type]
            for row in csv.DictReader(file)
        ]


def show(rows: Iterable[Row]) -> None:
    """Print rows as a table."""
    for row in rows:
        span = f"{row.p20:.4g} to {row.p80:.4g}"
        print(f"{row.provider:34} {row.metric:26} {row.x:>8} {row.p50:12.4g} {row.unit:12} {span}")


def keep(question: str, rows: Iterable[Row]) -> None:
    """Print a question's rows and replace its CSV."""
    measured = list(rows)
    show(measured)
    write(question, measured)

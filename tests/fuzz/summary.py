"""A run as a table that people and programs read: one row a target and figure."""

from __future__ import annotations

import csv
import datetime as dt
from typing import TYPE_CHECKING, Final

from benchmarks.record import device, versions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fuzz.campaign import Kept
    from tests.fuzz.tally import Tally

COLUMNS: Final = (
    "target",
    "metric",
    "value",
    "unit",
    "number",
    "seed",
    "device",
    "versions",
    "date",
)


def write_summary(kept: Kept, path: Path) -> None:
    """Write the CSV."""
    about = (kept.seed, device(), versions(), dt.datetime.now(tz=dt.UTC).date().isoformat())
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerow(("all", "cases", kept.count, "cases", "", *about))
        writer.writerow(("all", "failed", kept.failed, "cases", "", *about))
        writer.writerow(("all", "duration", round(kept.seconds), "s", "", *about))
        for name, tally in kept.tallies.items():
            writer.writerows((name, *figure, *about) for figure in _figures(tally))


def _figures(tally: Tally) -> Iterator[tuple[str, float, str, int | str]]:
    accepted = sum(n for verdict, n in tally.verdicts.items() if verdict.startswith("accepted"))
    yield "cases", tally.cases, "cases", ""
    yield "failed", tally.failed, "cases", ""
    yield "accepted", accepted, "cases", ""
    yield "mean", round(tally.total_ns / max(1, tally.cases) / 1_000, 1), "us", ""
    yield "p99", round(tally.quantile_us(0.99), 1), "us", ""
    yield "slowest", round(tally.slowest_ns / 1_000, 1), "us", tally.slowest
    yield "sampled", tally.sampled, "cases", ""
    yield "peak", tally.peak_bytes, "bytes", tally.peak
    for verdict, number in sorted(tally.verdicts.items(), key=lambda each: -each[1]):
        yield f"verdict {verdict}", number, "cases", ""

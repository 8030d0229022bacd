"""What runs on a GPU left in benchmarks/results/: of each table the newest run's device and code.

A table may hold rows of several devices and of older code; a picture mixes none of them.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from benchmarks import record
from benchmarks.gpu.cases import ROWS
from benchmarks.gpu.timing import IN_A_GRAPH
from benchmarks.gpu.workloads import Workload, decode_case
from benchmarks.plots.style import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from benchmarks.gpu.workloads import Layer
    from benchmarks.record import Row

RANK = 16

Times = dict[tuple[str, str], dict[str, Span]]  # (config, x): µs a call of each provider


def newest(results: Path, question: str) -> list[Row]:
    """Return the rows of the newest run's device and code. Raises FileNotFoundError."""
    rows = record.read(question, results)
    if not rows:
        raise FileNotFoundError(errno.ENOENT, "nothing was measured", f"{results / question}.csv")
    last = (rows[-1].device, rows[-1].versions)
    return [row for row in rows if (row.device, row.versions) == last]


def origin(rows: Sequence[Row]) -> str:
    """Say where and when a run's figures were measured."""
    return f"{rows[-1].device}, {rows[-1].date}"


def times_of(rows: Iterable[Row]) -> Times:
    """Take the times in a graph; who was wrong or failed in a case has none there."""
    times: Times = {}
    for row in rows:
        if row.metric == IN_A_GRAPH:
            span = Span(row.p50, row.p20, row.p80)
            times.setdefault((row.config, row.x), {})[row.provider] = span
    return times


def decode_key(workload: Workload, layer: Layer, rows: int) -> tuple[str, str]:
    """Return what tells a case at rank 16 from all others in `Times`."""
    # With one row all workloads are one case, measured once.
    case = decode_case(workload if rows > 1 else Workload.DISTINCT, layer, rows, RANK)
    return case.config, str(rows)


def decodes(times: Times, layer: Layer) -> dict[Workload, dict[int, dict[str, Span]]]:
    """Return a layer's times at rank 16, by how rows share adapters and by their number."""
    return {
        workload: {rows: of_decode(times, workload, layer, rows) for rows in ROWS}
        for workload in Workload
    }


def of_decode(times: Times, workload: Workload, layer: Layer, rows: int) -> dict[str, Span]:
    """Return one case's times at rank 16, empty where it was not measured."""
    return times.get(decode_key(workload, layer, rows), {})

"""Which of the operator's goals are met: `python -m benchmarks.gpu.verdict`, from the CSVs.

A goal that lacks figures is not measured, whatever the others say; only one that no further figure
could save is missed before all are there. Judged is the newest run's device and code.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import record
from benchmarks.gpu import layer
from benchmarks.gpu.cases import ROWS, full_cases
from benchmarks.gpu.cost import cost_of
from benchmarks.gpu.providers import BOUNDS, INVARIANT, OURS
from benchmarks.gpu.roofs import roofs_of
from benchmarks.gpu.timing import IN_A_GRAPH
from benchmarks.gpu.workloads import PUNICA, Workload, decode_case

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.gpu.workloads import Case
    from benchmarks.record import Row

QUESTION = "sgmv_verdict"
TABLES = ("sgmv_gpu", "layer_gpu", "gpu_roofs")
SERVERS = ("vLLM", "SGLang")

FLOORS = 3.0  # times the least time that the bytes take
FLAT = 1.10  # slowest over fastest
AHEAD = 1.2  # of the best peer, in the geometric mean
NEVER_BELOW = 0.9
PRICE = 1.10  # of invariant over fast
ADDED = 10.0  # % of the layer's linears


class State(StrEnum):
    """What is known of a goal."""

    MET = "met"
    MISSED = "missed"
    UNKNOWN = "not measured"


class Line(NamedTuple):
    """One goal: `x` says at which sizes, `measured` is NaN where there is nothing."""

    goal: str
    x: str
    bound: str
    measured: float
    state: State
    of: str
    unit: str = "1"


Times = dict[tuple[str, str], dict[str, float]]


def judge(tables: Mapping[str, Sequence[Row]]) -> list[Line]:
    """Judge every goal by the rows of `TABLES`, which are of one device and one code."""
    times: Times = {}
    for row in tables.get("sgmv_gpu", ()):
        if row.metric == IN_A_GRAPH and row.p50 > 0:
            times.setdefault((row.config, row.x), {})[row.provider] = row.p50
    grid = [case for case in full_cases() if not case.dora]
    return [
        _floor(times, tables.get("gpu_roofs", ())),
        *(_flat(times, each) for each in Workload if each is not Workload.DISTINCT),
        *_against_peers(times, grid),
        *_price(times, grid),
        *(_layer(tables.get("layer_gpu", ()), case) for case in layer.all_cases()),
    ]


def _of(times: Times, case: Case) -> dict[str, float]:
    return times.get((case.config, str(case.rows)), {})


def _state(
    measured: float, *, misses: bool, missing: bool = False, only_worse: bool = True
) -> State:
    """Judge a figure; with figures missing, a miss counts where more can only make it worse."""
    if misses and (only_worse or not missing):
        return State.MISSED
    return State.UNKNOWN if missing or math.isnan(measured) else State.MET


def _floor(times: Times, roofs: Iterable[Row]) -> Line:
    case = decode_case(Workload.DISTINCT, PUNICA, 64, 16)
    found = roofs_of(roofs)
    own = _of(times, case).get(OURS)
    over = math.nan
    if found is not None and own is not None:
        over = own / (cost_of(case).bytes / found.memory * 1e6)
    goal = "shrink and expand over the time of their bytes"
    state = _state(over, misses=over > FLOORS)
    return Line(goal, "64", f"at most {FLOORS:g}", over, state, case.config)


def _flat(times: Times, workload: Workload) -> Line:
    # With one row all workloads are the same case.
    cases = [
        decode_case(workload if rows > 1 else Workload.DISTINCT, PUNICA, rows, 16) for rows in ROWS
    ]
    own = [took for case in cases if (took := _of(times, case).get(OURS)) is not None]
    over = max(own) / min(own) if own else math.nan
    state = _state(over, misses=over > FLAT, missing=len(own) < len(cases))
    goal = "slowest over fastest from 1 to 64 rows"
    of = f"{cases[-1].config}; {len(own)} of {len(cases)} sizes"
    return Line(goal, "1 to 64", f"at most {FLAT:g}", over, state, of)


def is_peer(provider: str) -> bool:
    """Say whether it does the job and is not ours."""
    return provider not in BOUNDS and not provider.startswith("Aril")


def _against_peers(times: Times, grid: Sequence[Case]) -> tuple[Line, Line]:
    """Take the best peer of each case, where one that serves others was timed."""
    found = []
    for case in grid:
        by_name = _of(times, case)
        peers = {name: took for name, took in by_name.items() if is_peer(name)}
        if OURS in by_name and any(name.startswith(SERVERS) for name in peers):
            found.append(min(peers.values()) / by_name[OURS])
    missing = len(found) < len(grid)
    mean = statistics.geometric_mean(found) if found else math.nan
    least = min(found, default=math.nan)
    ahead = _state(mean, misses=mean < AHEAD, missing=missing, only_worse=False)
    slowest = _state(least, misses=least < NEVER_BELOW, missing=missing)
    goal, of = "times as fast as the best peer", _of_grid(found, grid)
    return (
        Line(f"{goal}, geometric mean", "all", f"at least {AHEAD:g}", mean, ahead, of),
        Line(f"{goal}, at worst", "all", f"at least {NEVER_BELOW:g}", least, slowest, of),
    )


def _price(times: Times, grid: Sequence[Case]) -> tuple[Line, Line]:
    """Compare our modes: the mean may hide a shape, so the worst is a goal of its own."""
    both = [each for case in grid if {INVARIANT, OURS} <= (each := _of(times, case)).keys()]
    found = [each[INVARIANT] / each[OURS] for each in both]
    missing = len(found) < len(grid)
    mean = statistics.geometric_mean(found) if found else math.nan
    worst = max(found, default=math.nan)
    usual = _state(mean, misses=mean > PRICE, missing=missing, only_worse=False)
    dearest = _state(worst, misses=worst > PRICE, missing=missing)
    bound, of = f"at most {PRICE:g}", _of_grid(found, grid)
    return (
        Line("invariant over fast, geometric mean", "all", bound, mean, usual, of),
        Line("invariant over fast, at worst", "all", bound, worst, dearest, of),
    )


def _of_grid(found: Sequence[float], grid: Sequence[Case]) -> str:
    return f"the whole grid; {len(found)} of {len(grid)} cases"


def _layer(rows: Iterable[Row], case: layer.LayerCase) -> Line:
    wanted = (case.config, str(case.rows), OURS, layer.ADDED)
    added = math.nan
    for row in rows:
        if (row.config, row.x, row.provider, row.metric) == wanted:
            added = row.p50
    goal, bound = "adapters of a layer beside its linears", f"under {ADDED:g} %"
    state = _state(added, misses=added >= ADDED)
    return Line(goal, str(case.rows), bound, added, state, case.config, "%")


def rows_of(lines: Iterable[Line], *, device: str, versions: str, mark: str = "") -> list[Row]:
    """Put goals in the form of all figures; what became of them is in the config."""
    return [
        record.Row(
            QUESTION,
            OURS,
            line.goal,
            line.x,
            p50=line.measured,
            p20=line.measured,
            p80=line.measured,
            unit=line.unit,
            config=f"{mark}{line.of}; goal: {line.bound}; {line.state}",
            device=device,
            versions=versions,
        )
        for line in lines
    ]


def show(lines: Iterable[Line]) -> None:
    """Print the goals as a table."""
    print("\ngoals, measured, bound")
    for line in lines:
        figure = "-" if math.isnan(line.measured) else f"{line.measured:.3g}"
        print(f"  {line.state.upper():12} {line.goal:48} {figure:>8} {line.bound:14} {line.of}")


def main() -> int:
    """Read a folder's CSVs, print the verdict and write sgmv_verdict.csv there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.verdict", description=__doc__)
    parser.add_argument("--results", type=Path, default=record.RESULTS, help="folder of the CSVs")
    folder = parser.parse_args().results
    tables = {name: record.read(name, folder) for name in TABLES}
    newest = next((rows[-1] for rows in tables.values() if rows), None)
    if newest is None:
        print(f"nothing was measured on a GPU: no CSV in {folder}", file=sys.stderr)
        return 1
    origin = (newest.device, newest.versions)
    lines = judge(
        {
            name: [row for row in rows if (row.device, row.versions) == origin]
            for name, rows in tables.items()
        }
    )
    print(f"{newest.device}, {newest.versions}, {newest.date}")
    show(lines)
    path = record.write(
        QUESTION,
        rows_of(lines, device=newest.device, versions=newest.versions),
        folder,
    )
    print(f"\nwritten to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

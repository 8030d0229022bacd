"""The verdict on the operator's goals: each can be met and missed, and none is met by a gap."""

from __future__ import annotations

import csv
import math
import sys
from typing import TYPE_CHECKING

import pytest

from benchmarks import record
from benchmarks.gpu import layer, verdict
from benchmarks.gpu.cases import ROWS, full_cases
from benchmarks.gpu.cost import cost_of
from benchmarks.gpu.providers import INVARIANT, OURS
from benchmarks.gpu.verdict import State
from benchmarks.gpu.workloads import PUNICA, Workload, decode_case

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gpu.workloads import Case
    from benchmarks.record import Row

GRID = [case for case in full_cases() if not case.dora]
DISTINCT = decode_case(Workload.DISTINCT, PUNICA, 64, 16)
SKEWED = decode_case(Workload.SKEWED, PUNICA, 32, 16)
ELSEWHERE = GRID[-1]
FLOOR, FLAT, AHEAD, WORST, PRICE, DEAREST, LAYER = (
    "shrink and expand over the time of their bytes",
    "slowest over fastest from 1 to 64 rows",
    "times as fast as the best peer, geometric mean",
    "times as fast as the best peer, at worst",
    "invariant over fast, geometric mean",
    "invariant over fast, at worst",
    "adapters of a layer beside its linears",
)


class Figures:
    """A table in which every goal is met: 20 µs for all of ours, 30 µs for the best peer."""

    def __init__(self) -> None:
        self.times = {
            (case.config, str(case.rows)): {
                OURS: 20.0,
                INVARIANT: 21.0,
                "vLLM": 30.0,
                "SGLang csgmv": 31.0,
                "per-adapter loop": 99.0,
                # Neither bounds nor our other variants are peers.
                "BMM, gathered before": 1.0,
                "torch.mm, one adapter": 1.0,
                "Aril fast, static plan": 1.0,
                "Aril, as served": 1.0,
            }
            for case in GRID
        }
        # Distinct with 64 rows takes twice the time of its bytes.
        self.memory = cost_of(DISTINCT).bytes / 10.0 / 1e3
        self.roofs = {
            "copy": self.memory,
            "triad": self.memory / 2,
            "product": 800.0,
            "smallest kernel": 2.0,
        }
        self.added = {case.config: 9.9 for case in layer.all_cases()}

    def of(self, case: Case) -> dict[str, float]:
        """Return one case's times."""
        return self.times[case.config, str(case.rows)]

    def tables(self, versions: str = "new") -> dict[str, list[Row]]:
        """Return the rows that a run would have kept."""

        def row(
            question: str, provider: str, metric: str, x: str, value: float, config: str
        ) -> Row:
            return record.Row(
                question, provider, metric, x, value, value, value, "us", config, "H100", versions
            )

        return {
            "sgmv_gpu": [
                each
                for (config, x), by_name in self.times.items()
                for name, took in by_name.items()
                for each in (
                    row("sgmv_gpu", name, "time, eager", x, 1.0, config),
                    row("sgmv_gpu", name, "time in a graph", x, took, config),
                )
            ],
            "gpu_roofs": [
                row("gpu_roofs", name, "rate", "1", value, "bf16")
                for name, value in self.roofs.items()
            ],
            "layer_gpu": [
                row("layer_gpu", OURS, layer.ADDED, "32", value, config)
                for config, value in self.added.items()
            ],
        }

    def states(self) -> dict[str, list[State]]:
        """Return what becomes of each goal."""
        states: dict[str, list[State]] = {}
        for line in verdict.judge(self.tables()):
            states.setdefault(line.goal, []).append(line.state)
        return states


@pytest.fixture
def figures() -> Figures:
    """Return a table in which every goal is met."""
    return Figures()


def changed(figures: Figures) -> dict[str, list[State]]:
    """Return the goals that are not what they are in a table where all are met."""
    met = Figures().states()
    return {goal: states for goal, states in figures.states().items() if states != met[goal]}


def test_every_goal_can_be_met(figures: Figures) -> None:
    """Eleven lines: flat and the layer have one a workload."""
    states = figures.states()
    assert set(states) == {FLOOR, FLAT, AHEAD, WORST, PRICE, DEAREST, LAYER}
    assert sum(map(len, states.values())) == 11
    assert {state for each in states.values() for state in each} == {State.MET}
    measured = {line.goal: line.measured for line in verdict.judge(figures.tables())}
    assert measured[FLOOR] == pytest.approx(2.0)
    assert measured[AHEAD] == pytest.approx(1.5)
    assert measured[PRICE] == pytest.approx(1.05)


def test_the_floor_can_be_missed(figures: Figures) -> None:
    """A memory twice as fast leaves the same time at four times the floor."""
    figures.roofs["triad"] = 2 * figures.memory
    assert changed(figures) == {FLOOR: [State.MISSED]}


def test_flat_can_be_missed_by_one_size(figures: Figures) -> None:
    """In the workload that has it, and no other; the sizes between count too."""
    figures.of(SKEWED)[OURS] = 22.1
    assert changed(figures) == {FLAT: [State.MET, State.MISSED, State.MET]}


def test_the_mean_over_the_peers_can_be_missed(figures: Figures) -> None:
    """Just below 1.2 everywhere; and the best peer is the one that counts."""
    for by_name in figures.times.values():
        by_name["SGLang csgmv"] = 23.9
    assert changed(figures) == {AHEAD: [State.MISSED]}


def test_one_row_behind_a_peer_is_a_miss(figures: Figures) -> None:
    """Whatever the mean says, and also while other rows are missing."""
    figures.of(ELSEWHERE)["per-adapter loop"] = 17.9
    assert changed(figures) == {WORST: [State.MISSED]}
    del figures.times[GRID[-2].config, str(GRID[-2].rows)]
    assert figures.states()[WORST] == [State.MISSED]


def test_invariant_can_cost_too_much(figures: Figures) -> None:
    """In one case, which the mean hides, or in all."""
    figures.of(ELSEWHERE)[INVARIANT] = 23.0
    assert changed(figures) == {DEAREST: [State.MISSED]}
    for by_name in figures.times.values():
        by_name[INVARIANT] = 23.0
    assert changed(figures) == {PRICE: [State.MISSED], DEAREST: [State.MISSED]}


def test_a_layer_can_cost_too_much(figures: Figures) -> None:
    """Ten per cent is not under ten."""
    figures.added[layer.all_cases()[1].config] = 10.0
    assert changed(figures) == {LAYER: [State.MET, State.MISSED, State.MET]}


def test_nothing_is_met_without_figures() -> None:
    """Not even where the comparison of nothing would be true."""
    lines = verdict.judge({})
    assert len(lines) == 11
    assert {line.state for line in lines} == {State.UNKNOWN}
    assert all(math.isnan(line.measured) for line in lines)


def test_one_missing_case_leaves_what_needs_it_unknown(figures: Figures) -> None:
    """The whole grid is the whole grid."""
    del figures.of(ELSEWHERE)[OURS]
    unknown = [State.UNKNOWN]
    assert changed(figures) == dict.fromkeys((AHEAD, WORST, PRICE, DEAREST), unknown)


def test_one_missing_size_leaves_flat_unknown(figures: Figures) -> None:
    """One row is a size of all three workloads."""
    del figures.of(decode_case(Workload.DISTINCT, PUNICA, ROWS[0], 16))[OURS]
    assert figures.states()[FLAT] == [State.UNKNOWN] * 3


def test_being_ahead_of_torch_alone_is_not_ahead_of_the_peers(figures: Figures) -> None:
    """Where no server's kernel was timed, nothing is known of that case."""
    for name in ("vLLM", "SGLang csgmv"):
        del figures.of(ELSEWHERE)[name]
    assert changed(figures) == {AHEAD: [State.UNKNOWN], WORST: [State.UNKNOWN]}


def test_other_gaps_leave_their_goals_unknown(figures: Figures) -> None:
    """A roof, the invariant mode in one case, a workload of the layer."""
    del figures.roofs["triad"]
    del figures.of(ELSEWHERE)[INVARIANT]
    del figures.added[layer.all_cases()[0].config]
    assert changed(figures) == {
        FLOOR: [State.UNKNOWN],
        PRICE: [State.UNKNOWN],
        DEAREST: [State.UNKNOWN],
        LAYER: [State.UNKNOWN, State.MET, State.MET],
    }


def test_the_command_judges_the_newest_code(
    figures: Figures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows of older code fill no gap; what it says is kept in the one form."""
    older = figures.tables("old")
    del figures.times[DISTINCT.config, "64"]
    for name, rows in figures.tables().items():
        record.write(name, [*older[name], *rows], tmp_path)
    monkeypatch.setattr(sys, "argv", ["verdict", "--results", str(tmp_path)])
    assert verdict.main() == 0
    with (tmp_path / "sgmv_verdict.csv").open(newline="") as file:
        kept = list(csv.DictReader(file))
    assert len(kept) == 11
    floor = kept[0]
    assert (floor["metric"], floor["p50"]) == (FLOOR, "nan")
    assert floor["config"].endswith("goal: at most 3; not measured")
    assert {row["versions"] for row in kept} == {"new"}
    assert sum(row["config"].endswith("; met") for row in kept) == 6


def test_the_command_says_that_there_is_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And writes no table."""
    monkeypatch.setattr(sys, "argv", ["verdict", "--results", str(tmp_path)])
    assert verdict.main() == 1
    assert "nothing was measured on a GPU" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

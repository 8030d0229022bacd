"""A run outlives its providers, can be cut anywhere, and goes on where it stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.sgmv.cost import H100_SXM
from benchmarks import record
from benchmarks.gpu import failures, layer, sgmv, trial
from benchmarks.gpu.failures import DeviceLost
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import GatherBmm, Loop
from benchmarks.gpu.results import Results, code_version
from benchmarks.gpu.sgmv import QUESTION, count_launches, measure
from benchmarks.gpu.timing import IN_A_GRAPH
from benchmarks.gpu.workloads import TINY, Workload, decode_case

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.gpu.problem import Problem
    from benchmarks.gpu.providers import Provider
    from benchmarks.gpu.workloads import Case
    from benchmarks.record import Row

CASES = [decode_case(Workload.SKEWED, TINY[1], rows, 16, dtype="float32") for rows in (2, 3, 4)]
TIMES = ("time, eager", "plan, once a step")


class Breaks(Loop):
    """Right until its n-th call, or its n-th binding, raises."""

    name = "breaks"

    def __init__(self, error: Exception, *, call: int = 0, bind: int = 0) -> None:
        self.error = error
        self.call = call
        self.bound = bind

    def bind(self, problem: Problem, plan: list[tuple[int, torch.Tensor]]) -> Callable[[], None]:  # type: ignore[override]
        """Count down."""
        self.bound -= 1
        if self.bound == 0:
            raise self.error
        add = super().bind(problem, plan)

        def call() -> None:
            self.call -= 1
            if self.call == 0:
                raise self.error
            add()

        return call


class Clock:
    """A clock that a deadline can be put to: each look at it is one second later."""

    def __init__(self) -> None:
        self.now = 0

    def monotonic(self) -> int:
        """Go on by a second."""
        self.now += 1
        return self.now


def run(
    folder: Path,
    providers: Sequence[Provider],
    *,
    code: str = "one",
    resume: bool = True,
    deadline: float = float("inf"),
) -> list[Row]:
    """Measure the cases as one command would; return what is then in the folder."""
    results = Results(torch.device("cpu"), folder, rehearsal=True, code=code)
    if resume:
        results.resume(folder, [QUESTION])
    measure(CASES, providers, results, H100_SXM, deadline=deadline, repetitions=2)
    return record.read(f"rehearsal_{QUESTION}", folder)


def keys(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """Tell rows by all but the figures."""
    return [(row.provider, row.metric, row.x, row.config, row.unit) for row in rows]


@pytest.mark.parametrize(
    "breaks",
    [
        # Calls: three examine it, the fourth and fifth are timed. Bindings: the fourth is timed.
        *(Breaks(RuntimeError("no room\nfor more"), call=call) for call in (1, 2, 3, 4, 5)),
        *(Breaks(RuntimeError("no room\nfor more"), bind=bind) for bind in (1, 4)),
    ],
)
def test_one_that_fails_does_not_stop_the_others(tmp_path: Path, breaks: Breaks) -> None:
    """Wherever it fails: it is noted with its first line, not timed, and the run goes on."""
    rows = run(tmp_path, [breaks, Loop()])
    first = [row for row in rows if row.x == "2"]
    failed = [row.metric for row in first if row.metric.startswith("failed")]
    assert failed == ["failed: RuntimeError: no room"]
    timed = {(row.provider, row.metric) for row in first if row.metric in TIMES}
    assert timed == {("per-adapter loop", metric) for metric in TIMES}
    assert {row.x for row in rows if row.provider == "breaks" and row.metric in TIMES} == {"3", "4"}


def test_a_case_that_fails_as_a_whole_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No room for its operands, say: all others are measured."""

    def scarce(case: Case, device: torch.device, *, seed: int = 0) -> Problem:
        if case == CASES[1]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return make_problem(case, device, seed=seed)

    monkeypatch.setattr(sgmv, "make_problem", scarce)
    rows = run(tmp_path, [Loop()])
    assert {row.x for row in rows if row.metric in TIMES} == {"2", "4"}
    (failed,) = (row for row in rows if row.x == "3")
    assert failed.provider == "every provider"
    assert failed.metric == "failed: OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB."


def test_a_layer_is_timed_without_who_fails(tmp_path: Path) -> None:
    """Both at binding and at the first call."""
    case = layer.LayerCase(Workload.DISTINCT, TINY, rows=3, dtype="float32")
    ways: list[Provider] = [
        Loop(),
        Breaks(RuntimeError("no room"), call=1),
        GatherBmm(),
    ]
    for breaks in (ways[1], Breaks(RuntimeError("no room"), bind=2)):
        results = Results(torch.device("cpu"), tmp_path, rehearsal=True)
        ways[1] = breaks
        layer.measure([case], ways, results, deadline=float("inf"), repetitions=2)
        told = [(row.provider, row.metric) for row in results.rows[layer.QUESTION]]
        assert {name for name, metric in told if metric == layer.ADDED} == {
            layer.ALONE,
            "per-adapter loop",
            "Gather-BMM",
        }
        assert ("breaks", "failed: RuntimeError: no room") in told


def test_runs_that_were_cut_make_the_table_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes on behind the last one's cases, whose rows stay as they are."""
    ways: list[Provider] = [Loop(), GatherBmm()]
    whole = run(tmp_path / "whole", ways)
    tables = []
    for _ in CASES:
        monkeypatch.setattr(trial, "time", Clock())
        tables.append(run(tmp_path / "cut", ways, deadline=2))
    assert [sorted({row.x for row in rows}) for rows in tables] == [["2"], ["2", "3"], [*"234"]]
    assert tables[1][: len(tables[0])] == tables[0]
    assert tables[2][: len(tables[1])] == tables[1]
    assert keys(tables[2]) == keys(whole)
    again = run(tmp_path / "cut", ways)
    assert again == tables[2]


def test_without_resume_a_run_begins_anew(tmp_path: Path) -> None:
    """The table is that of the last run alone."""
    first = run(tmp_path, [Loop()])
    assert keys(run(tmp_path, [GatherBmm()], resume=False)) != keys(first)
    assert {row.provider for row in run(tmp_path, [Loop()], resume=False)} == {"per-adapter loop"}


def test_other_code_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A case replaces what other code measured of it on this device, and leaves other devices'."""
    old = run(tmp_path, [Loop()])
    elsewhere = [replace(row, device="another") for row in old]
    record.write(f"rehearsal_{QUESTION}", [*elsewhere, *old], tmp_path)
    monkeypatch.setattr(trial, "time", Clock())
    rows = run(tmp_path, [Loop()], code="two", deadline=2)
    assert [row for row in rows if row.device == "another"] == elsewhere
    here = [(row.x, row.versions.split()[-1]) for row in rows if row.device != "another"]
    assert set(here) == {("3", "one"), ("4", "one"), ("2", "two")}
    assert keys(rows[-len(here) // 3 :]) == keys([row for row in old if row.x == "2"])


def test_after_a_lost_device_the_next_run_leaves_the_culprit_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What there was is kept, the case in hand is measured anew without it; then all is done."""
    breaks = Breaks(RuntimeError("CUDA error: an illegal memory access"), call=10)
    with monkeypatch.context() as broken:
        broken.setattr(failures, "works", lambda _: False)
        with pytest.raises(DeviceLost, match="with breaks: RuntimeError: CUDA error"):
            run(tmp_path, [Loop(), breaks])
    kept = record.read(f"rehearsal_{QUESTION}", tmp_path)
    assert {row.x for row in kept if row.metric in TIMES} == {"2"}
    assert [row.provider for row in kept if row.x == "3"] == ["breaks"]
    assert kept[-1].metric == "device lost: RuntimeError: CUDA error: an illegal memory access"
    rows = run(tmp_path, [Loop(), breaks])
    assert "left out: the device stopped working with it before" in capsys.readouterr().out
    timed = {(row.provider, row.x) for row in rows if row.metric == TIMES[0]}
    assert timed == {(name, x) for name in ("per-adapter loop", "breaks") for x in "234"} - {
        ("breaks", "3")
    }
    assert run(tmp_path, [Loop(), breaks]) == rows


def test_launches_are_counted_after_the_timing_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of who was timed in a graph, in cases that were; a second run has nothing left to count."""
    counted: list[str] = []

    def count(call: Callable[[], None]) -> int:
        call()
        counted.append("a call")
        return 2

    monkeypatch.setattr(sgmv, "launches", count)
    monkeypatch.setattr(sgmv, "counted_cases", lambda: CASES)
    ways: list[Provider] = [Loop(), GatherBmm()]
    results = Results(torch.device("cpu"), tmp_path, rehearsal=True)
    for case in CASES[:2]:
        results.add(
            QUESTION, "Gather-BMM", IN_A_GRAPH, case.rows, [1.0], unit="us", config=case.config
        )
    for _ in range(2):
        count_launches(CASES, ways, results, deadline=float("inf"))
    rows = [row for row in results.rows[QUESTION] if row.metric == "launches"]
    assert [(row.provider, row.x, row.p50) for row in rows] == [
        ("Gather-BMM", "2", 2.0),
        ("Gather-BMM", "3", 2.0),
    ]
    assert len(counted) == 2


def test_a_changed_kernel_has_another_mark(tmp_path: Path) -> None:
    """As has a changed peer; what only reads the figures changes nothing."""
    (tmp_path / "kernels").mkdir()
    (tmp_path / "benchmarks/gpu").mkdir(parents=True)
    (tmp_path / "peers/vllm/ops").mkdir(parents=True)
    files = ["kernels/a.py", "benchmarks/gpu/b.py", "peers/vllm/ops/c.py"]
    marks = [code_version(tmp_path / "peers", tmp_path)]
    for name in files:
        (tmp_path / name).write_text("1")
        marks.append(code_version(tmp_path / "peers", tmp_path))
    assert len(set(marks)) == 4
    (tmp_path / "benchmarks/gpu/verdict.py").write_text("1")
    assert code_version(tmp_path / "peers", tmp_path) == marks[-1]


def test_a_killed_write_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new one takes its place whole, or not at all."""
    rows = run(tmp_path, [Loop()])

    def killed(_: Row) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(record, "_line", killed)
    with pytest.raises(KeyboardInterrupt):
        record.write(f"rehearsal_{QUESTION}", rows, tmp_path)
    assert record.read(f"rehearsal_{QUESTION}", tmp_path) == rows
    assert record.read("nothing", tmp_path) == []

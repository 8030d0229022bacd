"""The GPU benchmark as a command, and the judgements it makes before it times anything."""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.sgmv.cost import H100_SXM
from benchmarks import record
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import correctness
from benchmarks.gpu.cases import all_cases
from benchmarks.gpu.checks import examine
from benchmarks.gpu.failures import DeviceLost
from benchmarks.gpu.ours import served_providers
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import GatherBmm, GatheredBmm, Loop, OneAdapter
from benchmarks.gpu.results import REHEARSAL, Results, results_folder
from benchmarks.gpu.sgmv import QUESTION, measure
from benchmarks.gpu.workloads import TINY, Workload, decode_case, prefill_case
from benchmarks.record import RESULTS

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.gpu.problem import Problem

ROOT = Path(__file__).parents[2]
WITHOUT_GPU = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
CASE = decode_case(Workload.SKEWED, TINY[0], 6, 16, dtype="float32")


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command without a GPU."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env=WITHOUT_GPU | environment,
        capture_output=True,
        text=True,
        check=False,
    )


class LosesARow(Loop):
    """Wrong in one row of the batch."""

    name = "loses a row"

    def bind(self, problem: Problem, plan: list[tuple[int, torch.Tensor]]) -> Callable[[], None]:  # type: ignore[override]
        """Leave the first row out."""
        return super().bind(problem, [(slot, rows[rows > 0]) for slot, rows in plan])


class TouchesTheBackbone(Loop):
    """Right where there is an adapter, and writes where there is none."""

    name = "touches the backbone"

    def bind(self, problem: Problem, plan: list[tuple[int, torch.Tensor]]) -> Callable[[], None]:  # type: ignore[override]
        """Change rows without adapter by less than any tolerance."""
        add = super().bind(problem, plan)

        def call() -> None:
            add()
            problem.y[problem.row_slots < 0] *= 1 + 1e-6

        return call


class Wobbles(Loop):
    """Right, and not the same twice."""

    name = "wobbles"
    calls = 0

    def bind(self, problem: Problem, plan: list[tuple[int, torch.Tensor]]) -> Callable[[], None]:  # type: ignore[override]
        """Turn one bit from the third call on: those before it are compared with the truth."""
        add = super().bind(problem, plan)

        def call() -> None:
            add()
            type(self).calls += 1
            if self.calls > 2:
                problem.y.view(torch.int32)[0, 0] ^= 1

        return call


@pytest.mark.parametrize("provider", [Loop(), GatherBmm(), GatheredBmm()])
def test_right_ways_are_admitted(provider: Loop | GatherBmm) -> None:
    """What torch alone can do is right, also by the whole numbers."""
    verdict = examine(provider, make_problem(CASE, "cpu"))
    assert verdict.wrong is None
    assert verdict.error < 1e-5
    assert verdict.deterministic
    unseen = examine(provider, make_problem(CASE, "cpu"), runs=1, alone=0)
    assert (unseen.deterministic, unseen.row_invariant) == (None, None)


def test_a_wrong_way_is_refused() -> None:
    """A lost row and a touched row without adapter are both seen, and in words."""
    lost = examine(LosesARow(), make_problem(CASE, "cpu"))
    assert lost.wrong is not None
    assert "a row is off" in lost.wrong
    mixed = prefill_case(TINY[0], [4], decodes=2, backbone=2, dtype="float32")
    touched = examine(TouchesTheBackbone(), make_problem(mixed, "cpu"))
    assert touched.wrong == "rows without adapter changed"


def test_bits_that_change_are_seen() -> None:
    """Right within rounding, but not the same bits: admitted, and said."""
    verdict = examine(Wobbles(), make_problem(CASE, "cpu"))
    assert verdict.wrong is None
    assert verdict.deterministic is False


def test_one_adapter_is_checked_only_where_it_answers() -> None:
    """The bound for one adapter is right in Identical, and not compared elsewhere."""
    alike = decode_case(Workload.IDENTICAL, TINY[0], 4, 16, dtype="float32")
    assert examine(OneAdapter(), make_problem(alike, "cpu")).error < 1e-5
    assert examine(OneAdapter(), make_problem(CASE, "cpu")).wrong is None


def test_a_wrong_way_is_reported_and_never_timed(tmp_path: Path) -> None:
    """Its row says wrong, and no row of it has a time; a rehearsal's rows say what they are."""
    results = Results(torch.device("cpu"), tmp_path, rehearsal=True)
    measure([CASE], [Loop(), LosesARow()], results, H100_SXM, deadline=float("inf"), repetitions=1)
    with (tmp_path / f"rehearsal_{QUESTION}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = {(row["provider"], row["metric"]) for row in rows}
    assert ("loses a row", "wrong") in metrics
    assert not any("time" in metric for name, metric in metrics if name == "loses a row")
    assert ("per-adapter loop", "time, eager") in metrics
    assert all(row["config"].startswith(REHEARSAL) for row in rows)
    assert all(row["device"].startswith(REHEARSAL) for row in rows)


def test_a_lost_device_ends_the_run_with_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 1, who was at work, and where the figures are."""

    def lose(*_: object, **__: object) -> None:
        raise DeviceLost("vLLM", "AcceleratorError: CUDA error: an illegal memory access")

    monkeypatch.setattr(command, "_measure", lose)
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", "--rehearse", "--only", "sgmv"])
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert command.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("the device stopped working with vLLM: AcceleratorError: CUDA error")
    assert said.count("\n") == 1


def test_a_resumed_run_does_not_test_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where the same code passed here; what came before is written on, into another folder."""
    statuses = [1, 0]
    monkeypatch.setattr(correctness, "check_kernels", lambda **_: statuses.pop())

    def begin(out: str, resume: str | None) -> Results:
        given = argparse.Namespace(
            out=str(tmp_path / out), resume=resume, rehearse=False, peers=tmp_path
        )
        return command._results(given, on_gpu=False)

    assert command._check(begin("first", None)) == 0
    resumed = begin("second", str(tmp_path / "first"))
    assert command._check(resumed) == 0
    assert "passed here before" in capsys.readouterr().out
    resumed.write()
    first, second = (record.read(command.CHECKED, tmp_path / out) for out in ("first", "second"))
    assert first == second != []
    assert command._check(begin("first", None)) == 1


@pytest.mark.parametrize("arguments", [["--sweep", "--full"], ["--rehearse", "--resume", "x"]])
def test_options_that_exclude_each_other_say_so(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    """Rather than that one is ignored in silence."""
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu", *arguments])
    with pytest.raises(SystemExit) as ended:
        command._options()
    assert ended.value.code == 2


def test_a_rehearsal_never_writes_where_results_are() -> None:
    """Whatever folder was asked for."""
    folder = results_folder(str(RESULTS), rehearsal=True)
    assert RESULTS not in (folder, *folder.parents)
    folder.rmdir()


def test_the_first_cases_tell_most() -> None:
    """A run that is cut short has Punica's operator at 64 rows, in all four workloads."""
    first = all_cases()[:4]
    assert [case.workload for case in first] == [str(workload) for workload in Workload]
    assert {(case.rows, case.layer.sizes) for case in first} == {(64, "4096 to 11008")}


def test_without_a_gpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says so and fails, rather than to time the interpreter."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["benchmarks.gpu"])
    assert command.main() == 2
    assert "no CUDA device: only --rehearse runs here" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_run_rehearses(tmp_path: Path) -> None:
    """Correctness, every table and the peers where their sources are, through the interpreter."""
    finished = run("--rehearse", TMPDIR=str(tmp_path), OUT=str(tmp_path / "out"))
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "WRONG" not in finished.stdout
    assert "FAILED" not in finished.stdout
    written = {path.name for path in tmp_path.glob("aril-rehearsal-*/*.csv")}
    tables = {*command.RESUMED, "sgmv_verdict"} - {*command.TILES}
    assert written == {f"rehearsal_{table}.csv" for table in tables}
    assert not (tmp_path / "out").exists()
    (folder,) = tmp_path.glob("aril-rehearsal-*")
    rows = record.read("rehearsal_sgmv_gpu", folder)
    timed = {(row.config, row.x) for row in rows if row.metric == "time, eager"}
    for provider in served_providers():
        own = [row for row in rows if row.provider == provider.name]
        assert {(row.config, row.x) for row in own if row.metric == "time, eager"} == timed
    assert any("DoRA" in config for config, _ in timed)
    verdicts = record.read("rehearsal_sgmv_verdict", folder)
    assert all(row.config.endswith("; not measured") for row in verdicts)
    assert verdicts

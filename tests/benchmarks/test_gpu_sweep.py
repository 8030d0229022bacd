"""The sweep of tiles: who is tried, who comes into the final, and what it costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks import record
from benchmarks.gpu import screening, sweep, sweep_attention, sweep_sgmv
from benchmarks.gpu.candidates import best, expand_part, expands, label, shrink_part, shrinks
from benchmarks.gpu.results import Results
from benchmarks.gpu.screening import rows_of
from benchmarks.gpu.sequences import Problem as Sequences
from benchmarks.gpu.sequences import make_problem as draw_sequences
from benchmarks.gpu.sgmv_choices import recommend, warps_apart
from benchmarks.gpu.sweep_attention import AttentionSweep, every_shape
from benchmarks.gpu.sweep_sgmv import (
    EXPAND,
    LAYERS,
    QUESTION,
    RANKS,
    SHRINK,
    Sweep,
    cases_of,
    current,
)
from benchmarks.gpu.timing import IN_A_GRAPH
from benchmarks.gpu.workloads import TINY, Workload, decode_case

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.gpu.trial import Trial

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim > 0:DeprecationWarning"  # the interpreter's own
)
CASE = decode_case(Workload.SKEWED, TINY[0], 6, 16, dtype="float16")
COMMAND = 8.5 * 60  # seconds
QKV = LAYERS[:1]


def results_in(folder: Path) -> Results:
    """Take up what is in a folder, as a command does; on a device that is none."""
    results = Results(torch.device("cpu"), folder, rehearsal=False, code="one")
    results.resume(folder, [QUESTION])
    return results


def took(name: str, metric: str) -> float:
    """Say how long a candidate takes: 20 us, less where four splits and eight warps meet."""
    fields = dict(field.split("=") for field in name.split() if "=" in field)
    suits = (fields["block_m"], fields["splits"], fields["warps"]) == ("16", "4", "8")
    before = 5.0 if suits else 10.0
    after = 4.0 if suits and fields.get("expand_n") == "128" else 10.0
    return {SHRINK: before, EXPAND: after, IN_A_GRAPH: before + after}[metric]


@pytest.fixture
def _pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw and launch nothing: candidates take what they are said to, a percent up and down."""

    def time_calls(
        calls: Mapping[str, Any], trial: Trial, metric: str, *, repetitions: int
    ) -> None:
        assert repetitions == (20 if metric == IN_A_GRAPH else 3)
        for name in calls:
            trial.note(name, metric, [took(name, metric) * x for x in (0.99, 1.0, 1.01)], "us")

    nothing = dict.fromkeys(
        ("shrink", "expand", "whole", "shrink_error", "expand_error"), lambda _: None
    )
    monkeypatch.setattr(sweep_sgmv, "time_calls", time_calls)
    monkeypatch.setattr(sweep_sgmv, "passes", lambda *_: True)
    monkeypatch.setattr(Sweep, "_halves", lambda *_: SimpleNamespace(**nothing))


@pytest.mark.parametrize("decode", [True, False])
@pytest.mark.parametrize("max_rank", [8, 16, 64, 128, 256])
@pytest.mark.parametrize("in_features", [64, 4096, 14336])
def test_candidates_can_exist(in_features: int, max_rank: int, *, decode: bool) -> None:
    """None twice, none with tiles that nothing fills or with more splits than steps."""
    before = shrinks(in_features=in_features, max_rank=max_rank, decode=decode)
    after = expands(in_features=in_features, max_rank=max_rank, decode=decode)
    assert len(before) == len(set(before)) > 20
    assert len(after) == len(set(after)) > 20
    assert all(part.shrink_n <= max(16, max_rank) for part in before)
    assert all(part.expand_r <= max(16, max_rank) for part in after)
    assert all(part.splits * part.shrink_k <= max(in_features, part.shrink_k) for part in before)
    heights = {part.block_m for part in before} | {part.block_m for part in after}
    assert heights == {1, 2, 4, 16} | (set() if decode else {32, 64, 128})


@pytest.mark.parametrize("rank", [8, *RANKS, 128])
def test_what_is_chosen_now_is_tried(rank: int) -> None:
    """In each form and mode, for every kind of batch: all are compared with it."""
    heights = set()
    for case in (case for layer in LAYERS for case in cases_of(layer, rank)):
        weights = {"in_features": case.layer.in_features, "max_rank": rank}
        before, after = (
            shrinks(decode=case.decode, **weights),
            expands(decode=case.decode, **weights),
        )
        for tiles in current(case).values():
            assert shrink_part(tiles) in before
            assert expand_part(tiles) in after
            heights.add((tiles.block_m, tiles.splits))
    assert heights >= {(64, 1), (16, 1)}, "tall blocks, and many short segments"


def test_a_spilling_candidate_is_none() -> None:
    """Those that were found to spill kilobytes, and a pipeline that no block has room for."""
    start = current(cases_of(LAYERS[0], 64)[0])["tensor cores"]
    assert shrink_part(start).fits
    assert expand_part(start).fits
    assert not expand_part(start._replace(expand_n=256, expand_r=64, warps=2)).fits
    assert not shrink_part(start._replace(block_m=128, shrink_n=64, shrink_k=256)).fits
    vectors = current(cases_of(LAYERS[0], 64)[0])["vectors"]
    assert vectors.block_m == 4
    assert not shrink_part(vectors._replace(shrink_k=512)).fits
    assert not expand_part(vectors._replace(expand_n=256, expand_r=64)).fits


def test_the_best_over_all_tables_is_in_all_tables() -> None:
    """By the geometric mean; a case that failed as a whole doesn't veto."""
    tables = [{"a": 1.0, "b": 2.0, "c": 9.0}, {"a": 8.0, "b": 2.0}]
    assert best(tables, 2) == ["b", "a"]
    assert best([*tables, {}], 1) == ["b"]
    assert best([{}], 1) == []


@pytest.mark.usefixtures("_pretended")
def test_the_fastest_is_found_from_its_halves_and_named(tmp_path: Path) -> None:
    """Shrink and expand that fit each other come into the final together, and are recommended."""
    results = results_in(tmp_path)
    own = Sweep(results, QKV, [16], repetitions=20)
    cost = own.seconds()
    assert own.measure(deadline=float("inf")) == 0
    assert own.seconds() == 0 < cost
    decode = cases_of(QKV[0], 16)[0]
    fastest = current(decode)["invariant"]._replace(splits=4, warps=8, expand_n=128)
    for case in cases_of(QKV[0], 16):
        finalists = own.finalists(case)
        assert fastest in finalists
        assert {*current(case).values()} <= {*finalists}
        timed = rows_of(results, QUESTION, case, IN_A_GRAPH)
        assert {*timed} == {*map(label, finalists)}
        assert len(timed) <= 8 * (2 if case.decode else 1) + 4 + 6
    choices, forms = recommend(LAYERS, lambda case: rows_of(results, QUESTION, case, IN_A_GRAPH))
    found = {each.of: each for each in choices}
    for of in ("invariant; every batch", "tensor cores; Distinct, 64 rows"):
        verdict = found[f"{of}; 4096 features, rank 16"]
        assert verdict.winner == label(fastest)
        assert verdict.over == pytest.approx(0.45)
        assert verdict.beyond
    assert not found["vectors; Distinct, 64 rows; 4096 features, rank 16"].beyond
    assert not any(each is not None and each.beyond for all_of in forms.values() for each in all_of)


@pytest.mark.usefixtures("_pretended")
def test_a_sweep_that_was_cut_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case by case, in either stage: many commands leave the rows of one."""
    whole = Sweep(results_in(tmp_path / "whole"), QKV, [16], repetitions=20)
    assert whole.measure(deadline=float("inf")) == 0
    commands = 0
    left = 1
    while left:
        looks = iter(range(0, 10000, 100))
        monkeypatch.setattr(
            screening, "time", SimpleNamespace(monotonic=lambda looks=looks: next(looks))
        )
        part = Sweep(results_in(tmp_path / "cut"), QKV, [16], repetitions=20)
        left = part.measure(deadline=450)
        commands += 1
    assert commands > 3
    whole_rows, cut_rows = (
        [
            (row.provider, row.metric, row.x, row.config, row.p50)
            for row in record.read(QUESTION, tmp_path / name)
        ]
        for name in ("whole", "cut")
    )
    assert cut_rows == whole_rows


@pytest.mark.usefixtures("_pretended")
def test_no_case_begins_that_could_not_compile_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first case of a rank compiles for a minute; the deadline is for the end of that."""
    monkeypatch.setattr(screening, "time", SimpleNamespace(monotonic=lambda: 0.0))
    own = Sweep(results_in(tmp_path), QKV, [16], repetitions=20)
    kernels = len({*own.kernels(cases_of(QKV[0], 16)[0])})
    assert own.measure(deadline=kernels * screening.COMPILE_SECONDS - 1) == 9
    assert not (tmp_path / f"{QUESTION}.csv").exists()


@pytest.mark.usefixtures("_pretended")
def test_warps_apart_are_judged_by_what_was_screened(tmp_path: Path) -> None:
    """1 where the best halves have the same warps; a screening alone is enough."""
    own = Sweep(results_in(tmp_path), QKV, [16], repetitions=20)
    own.measure(deadline=float("inf"))
    assert warps_apart(own) == pytest.approx(1.0)
    for times in own._predicted.values():
        for tiles in [tiles for tiles in times if tiles.warps == 8]:
            del times[tiles]
    assert warps_apart(own) == pytest.approx(9 / 20)


def test_the_estimate_fits_a_few_commands(tmp_path: Path) -> None:
    """What the default sweep takes, by the guesses that the command prints."""
    results = results_in(tmp_path)
    assert Sweep(results, LAYERS, RANKS, repetitions=20).seconds() < 4 * COMMAND
    assert Sweep(results, QKV, [16], repetitions=20).seconds() < COMMAND
    shapes = every_shape(rehearsal=False)
    assert AttentionSweep(results, shapes, repetitions=20).seconds() < COMMAND


def test_a_wrong_attention_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """One head of one row, off by a tenth."""
    shape = every_shape(rehearsal=True)[0]
    drawn = draw_sequences(shape, torch.device("cpu"), seed=0)
    tiles = sweep_attention.current(shape, invariant=False)
    assert sweep_attention._error(drawn, tiles, drawn.exact()) < 1
    right = Sequences.attend

    def wrong(problem: Sequences, **options: Any) -> torch.Tensor:
        got = right(problem, **options)
        got[-1, 0] *= 1.1
        return got

    monkeypatch.setattr(Sequences, "attend", wrong)
    assert sweep_attention._error(drawn, tiles, drawn.exact()) > 1


def test_attention_tries_what_is_chosen_now() -> None:
    """In both modes; blocks above a group of heads for prompts only, pipelines below them only."""
    for shape in every_shape(rehearsal=False):
        found = sweep_attention.candidates(shape)
        assert len(found) == len(set(found))
        for invariant in (False, True):
            assert sweep_attention.current(shape, invariant=invariant) in found
        decode = sweep_attention.kind_of(shape) == "Decode"
        assert {tiles.block_m for tiles in found} == ({16} if decode else {16, 32, 64, 128})
        assert all((tiles.stages == 1) is (tiles.block_m >= 64) for tiles in found)
        assert len({(tiles.split, tiles.block_n) for tiles in found}) == 9


def test_a_name_chooses_and_one_of_nothing_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts of names, of both sweeps; a slip is not a sweep of nothing."""
    begun: list[str] = []

    def measure(self: Sweep, *, deadline: float) -> int:  # noqa: ARG001
        begun.extend(layer.name for layer in self.layers)
        return 2

    def attend(self: AttentionSweep, *, deadline: float) -> int:  # noqa: ARG001
        begun.extend(shape.name for shape in self.shapes)
        return 1

    monkeypatch.setattr(Sweep, "measure", measure)
    monkeypatch.setattr(AttentionSweep, "measure", attend)

    def run(which: str, *names: str) -> int:
        return sweep.measure(
            results_in(tmp_path),
            which,
            names=names,
            ranks=[16],
            deadline=0,
            minutes=8.5,
            repetitions=20,
        )

    assert run("all", "8B QKV", "Prefill 1 x 512") == 3
    assert begun == ["8B qkv", *["Prefill 1 x 512"] * 2]
    begun.clear()
    assert run("sgmv") == 2
    assert begun == [layer.name for layer in LAYERS]
    with pytest.raises(SystemExit, match="qvk"):
        run("all", "qvk")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_sweep_rehearses(tmp_path: Path) -> None:
    """Both sweeps with a few tile choices, by the same way as on a GPU."""
    finished = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--rehearse", "--sweep"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "WRONG" not in finished.stdout
    assert "FAILED" not in finished.stdout
    assert finished.stdout.count("the fastest over what is chosen now") == 2
    assert "MATRIX_VECTOR_ROWS = " in finished.stdout
    written = {path.name for path in tmp_path.glob("aril-rehearsal-*/*.csv")}
    assert written == {"rehearsal_sgmv_tiles.csv", "rehearsal_attention_tiles.csv"}

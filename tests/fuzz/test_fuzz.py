"""A short run over every surface, and that a long one would find what is there to find."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.fuzz import campaign
from tests.fuzz.__main__ import main
from tests.fuzz.campaign import Kept, split, stretches
from tests.fuzz.registry import TARGETS
from tests.fuzz.runner import run_one, run_stretch
from tests.fuzz.summary import write_summary
from tests.fuzz.tally import Tally
from tests.fuzz.target import ACCEPTED, BrokenRuleError

if TYPE_CHECKING:
    from pathlib import Path

CASES = {name: max(300, 4 * target.share) for name, target in TARGETS.items()}  # four seconds
NEW_SEED = int.from_bytes(os.urandom(4))
EACH = pytest.mark.parametrize("name", TARGETS)


@EACH
@pytest.mark.parametrize("seed", [1, NEW_SEED], ids=["known", "new"])
def test_whatever_comes_is_taken_or_refused(name: str, seed: int) -> None:
    """Some thousand cases, half of them new ones each time: `pytest -rP` tells the seed."""
    print(f"python -m tests.fuzz --target {name} --seed {seed} --case NUMBER")
    tally = run_stretch(TARGETS[name], seed, range(CASES[name] // 2))
    assert not tally.failures, f"seed {seed}: {tally.failures}"
    assert tally.sampled > 0


@EACH
def test_cases_are_neither_all_good_nor_all_bad(name: str) -> None:
    """What is never taken, or never refused, tests nothing. Few are enough: the seed is known."""
    tally = run_stretch(TARGETS[name], 1, range(150))
    accepted = sum(n for verdict, n in tally.verdicts.items() if verdict.startswith(ACCEPTED))
    assert 0 < accepted < tally.cases


@EACH
def test_a_case_is_its_seed_and_its_number(name: str) -> None:
    """In another process, on another day: whatever is told as failed can be repeated."""
    target = TARGETS[name]
    with target.around():
        made = [[repr(target.case(5, number)) for number in range(60)] for _ in range(2)]
        other = [repr(target.case(6, number)) for number in range(60)]
    assert made[0] == made[1] != other


def _untyped(case: Any) -> str:
    raise KeyError(str(case)[:3])


def _greedy(_case: Any) -> str:
    return str(len(bytes(8 << 20)))


@pytest.mark.parametrize(
    ("check", "what"), [(_untyped, "KeyError"), (_greedy, "BrokenRuleError: 'held 8")]
)
def test_a_fault_is_found_and_named(check: Any, what: str) -> None:
    """An exception that is nobody's, and memory without a bound, with the case's number."""
    target = replace(TARGETS["names"], check=check)
    tally = run_stretch(target, 1, range(40), memory_every=10)
    assert tally.failed in (4, 40)
    assert {number for number, _ in tally.failures} >= {0, 10}
    assert all(said.startswith(what) for _, said in tally.failures)
    with pytest.raises((KeyError, BrokenRuleError)):
        run_one(target, 1, tally.failures[0][0])


def test_the_worst_cases_are_remembered() -> None:
    """Slowest, largest, and the ninety-ninth percentile, also of tallies that are added up."""
    one, two = Tally(), Tally()
    for number in range(1_000):
        one.took(number, ACCEPTED, 1_000)
    two.took(77, "refused", 9_000_000)
    two.held(78, 5_000)
    two.failure(79, "broken")
    one.add(Tally.of_fields(two.as_fields()))
    assert (one.cases, one.slowest, one.peak, one.failed) == (1_002, 77, 78, 1)
    assert one.verdicts == {ACCEPTED: 1_000, "refused": 1}
    assert 0.95 < one.quantile_us(0.99) < 1.1
    assert one.quantile_us(1.0) > 8_500


def test_cases_are_split_over_all_targets() -> None:
    """None is left out, and what is cheap gets more."""
    counts = split(10_000_000)
    assert sum(counts.values()) == 10_000_000
    assert counts.keys() == TARGETS.keys()
    assert counts["names"] > counts["settings"] > 10_000


def test_a_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stretches that are done are not run again, and another run's file is not taken."""
    monkeypatch.setattr(campaign, "STRETCH", 100)
    path = tmp_path / "run.json"
    kept = Kept.load(path, 3, 1_000)
    kept.take("names", 100, run_stretch(TARGETS["names"], 3, range(100, 200)))
    kept.save(path)
    again = Kept.load(path, 3, 1_000)
    left = list(stretches({"names": 350}, again))
    assert left == [("names", range(100)), ("names", range(200, 300)), ("names", range(300, 350))]
    assert again.count == 100
    with pytest.raises(ValueError, match="seed 3"):
        Kept.load(path, 4, 1_000)


def test_a_process_that_dies_is_told_with_its_case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash in a library takes its process along: what it was at stands in a file."""
    places = tmp_path / "places"
    places.mkdir()
    campaign._begin(str(places))
    seen: list[str] = []

    def look(case: Any) -> str:
        seen.extend(campaign._places(places))
        return str(case)

    monkeypatch.setitem(TARGETS, "names", replace(TARGETS["names"], check=look))
    campaign._stretch(1, "names", range(7, 9))
    assert seen[0] == "names 7"
    assert seen[-1] == "names 8"


@pytest.mark.slow
def test_the_command_runs_keeps_and_writes(tmp_path: Path) -> None:
    """In processes of its own; a second one has nothing left to do and the same to tell."""
    told = tmp_path / "fuzz.csv"
    command = ["--cases", "2000", "--seed", "9", "--state", str(tmp_path), "--summary", str(told)]
    assert main(command) == 0
    first = told.read_text()
    assert main(command) == 0
    assert told.read_text() == first
    assert "all,cases,2000,cases" in first


def test_the_summary_has_a_row_a_figure(tmp_path: Path) -> None:
    """Cases, refusals by reason, times and memory, with the numbers of the worst."""
    kept = Kept(1, 300)
    kept.take("names", 0, run_stretch(TARGETS["names"], 1, range(300)))
    write_summary(kept, tmp_path / "fuzz.csv")
    lines = (tmp_path / "fuzz.csv").read_text().splitlines()
    names = {line.split(",")[1] for line in lines if line.startswith("names,")}
    assert {"cases", "failed", "accepted", "p99", "slowest", "peak", "verdict no_name"} <= names

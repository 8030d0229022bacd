"""Ways take turns, and what each brought stays with the others of its repetition."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from benchmarks import record
from benchmarks.record import Row, ratios
from benchmarks.turns import in_turns

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_each_way_has_its_turn_in_each_repetition() -> None:
    """One more round comes first and is not told; who runs after whom changes."""
    called: list[str] = []

    def way(name: str) -> int:
        called.append(name)
        return len(called)

    taken = in_turns({name: partial(way, name) for name in "abc"}, 8)
    rounds = [called[first : first + 3] for first in range(0, len(called), 3)]
    assert len(rounds) == 9
    assert all(sorted(each) == [*"abc"] for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    for name in "abc":
        assert taken[name] == [
            3 * number + rounds[number].index(name) + 1 for number in range(1, 9)
        ]


def test_figures_are_divided_within_their_repetition() -> None:
    """Not the one's median by the other's."""
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]


def test_rows_are_printed_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The CSV is the question's, and says where it was measured if that is not here."""
    monkeypatch.setattr(record.write, "__defaults__", (tmp_path,))
    row = Row.of(
        [3.0, 1.0, 2.0],
        question="q",
        provider="p",
        metric="m",
        x=4,
        unit="ms",
        config="c",
        device="elsewhere",
    )
    record.keep("q", iter([row]))
    assert record.read("q", tmp_path) == [row]
    assert (row.p50, row.x, row.device) == (2.0, "4", "elsewhere")
    assert capsys.readouterr().out.split()[:3] == ["p", "m", "4"]

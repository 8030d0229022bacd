"""What the benchmark of engines that share a machine makes of what they tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from benchmarks import neighbours
from benchmarks.neighbours import BUSY, CROWD, OWN, WAYS, measure

if TYPE_CHECKING:
    import pytest

    from benchmarks.neighbours import Way


ASKED: list[Told] = []


class Told:
    """An engine that gives ten tokens a second, and half for each other that is asked with it."""

    def __init__(self, way: Way) -> None:
        self.way = way
        self.threads_told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End nothing: nothing runs."""

    def ask(self, seconds: float) -> None:
        """Count who decodes at the same time."""
        assert seconds == 0.5
        ASKED.append(self)

    def answer(self) -> float:
        """Tell first how many threads there are."""
        if not self.threads_told:
            self.threads_told = True
            return 2.0
        rate = (10.0 if self.way == OWN else 20.0) / len(ASKED)
        if ASKED[-1] is self:
            ASKED.clear()
        return rate


def test_each_figure_is_beside_the_default_engine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each way: alone, beside a busy process, and in each crowd; the ratio is of one turn."""
    monkeypatch.setattr(neighbours, "Neighbour", Told)
    rows = measure(0.5, turns=2)
    scenes = {"alone", BUSY, *map(str, range(2, CROWD + 1))}
    assert {(row.provider, row.x) for row in rows} == {
        (way.name, scene) for way in WAYS for scene in scenes
    }
    ratios = {(row.provider, row.x): row.p50 for row in rows if row.unit == "1"}
    assert ratios[OWN.name, "alone"] == 1.0
    assert ratios["300 spins", BUSY] == 2.0

"""What a sweep recommends: only what wins by more than the spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import record
from benchmarks.gpu.attention_choices import recommend
from benchmarks.gpu.candidates import label
from benchmarks.gpu.choices import Verdict, compare, show
from benchmarks.gpu.sgmv_choices import is_vector_label, vector_rows
from benchmarks.gpu.sweep_attention import candidates, current, kind_of, shapes_of

if TYPE_CHECKING:
    from aril.kernels.attention.tiles import AttentionTiles
    from benchmarks.gpu.sequences import Shape
    from benchmarks.record import Row

Figures = tuple[float, float, float]


def table(**times: Figures) -> dict[str, Row]:
    """Make the rows of a case: 20th percentile, median, 80th of each candidate."""
    return {
        name: record.Row("q", name, "m", "1", p50, p20, p80, "us", "c", "d", "v", "t")
        for name, (p20, p50, p80) in times.items()
    }


@pytest.mark.parametrize(
    ("winner", "beyond"),
    [((7, 8, 8.9), True), ((7, 8, 9), False), ((7, 8, 11), False), ((9, 9.9, 10), False)],
)
def test_inside_the_spread_nothing_is_recommended(
    winner: Figures, capsys: pytest.CaptureFixture[str], *, beyond: bool
) -> None:
    """The winner's 80th percentile against the current's 20th; what is printed follows it."""
    found = compare("of", [table(now=(9, 10, 11), new=winner)], ["now"])
    assert found is not None
    assert (found.winner, found.current, found.beyond) == ("new", "now", beyond)
    assert found.over == pytest.approx(winner[1] / 10)
    show([found], "Tiles")
    assert ("Tiles(new)," in capsys.readouterr().out) is beyond


def test_what_is_there_may_be_the_best() -> None:
    """Then it is the winner, however small its spread; a slower one is never recommended."""
    found = compare("of", [table(now=(9, 9, 9), new=(10, 10, 10))], ["now"])
    assert found is not None
    assert (found.winner, found.over, found.beyond) == ("now", 1.0, False)


def test_over_cases_a_winner_was_timed_in_all_of_them() -> None:
    """Means of quotients, each over its own case's current choice; the worst case is told."""
    tables = [
        table(short=(10, 10, 10), new=(5, 5, 5), lucky=(1, 1, 1)),
        table(tall=(10, 10, 10), new=(12, 12, 12)),
        table(unknown=(1, 1, 1)),
    ]
    found = compare("of", tables, ["short", "tall", "short"])
    assert found is not None
    assert (found.winner, found.current, found.cases) == ("new", "short or tall", 2)
    assert found.over == pytest.approx(0.6**0.5)
    assert found.worst == pytest.approx(1.2)
    assert found.beyond
    assert compare("of", [table(new=(1, 1, 1))], ["now"]) is None
    assert compare("of", tables[:1], ["short"], among=lambda name: name == "none") is None


def between(*, beyond: bool) -> Verdict:
    """Make a comparison of vectors with tensor cores."""
    return Verdict("of", "vectors", "tensor cores", 0.9, 0.9, 0.95 if beyond else 1.01, 1)


def test_vectors_are_taken_up_to_where_they_win_everything() -> None:
    """By rows alone: one kind of batch that they don't win, or that is unknown, ends it."""
    won, lost = between(beyond=True), between(beyond=False)
    assert vector_rows({("Uniform", 1): [won, won], ("Uniform", 4): [won]}) == 4
    assert vector_rows({("Uniform", 1): [won], ("Uniform", 4): [won, lost]}) == 1
    mixed = {("Uniform", 1): [won], ("Uniform", 16): [won], ("Distinct", 16): [lost]}
    assert vector_rows(mixed) == 1
    assert vector_rows({("Uniform", 1): [None], ("Uniform", 4): [won]}) == 0
    assert vector_rows({}) == 0
    assert is_vector_label("block_m=4 shrink_n=16")
    assert not is_vector_label("block_m=16 shrink_n=16")


SHAPES = [shape for shape in shapes_of(128) if shape.rows in {16, 512}]


def timed(shape: Shape, *, pair: float, tall: float) -> dict[str, Row]:
    """Say what candidates take: splits of 1,024 tokens `pair` of 10 us, 8 warps `tall` of it."""

    def took(tiles: AttentionTiles) -> float:
        eight = tall if tiles.warps == 8 and kind_of(shape) == "Prefill" else 1.0
        return 10 * (pair if tiles.split == 1024 else 1.0) * eight

    return table(
        **{
            label(tiles): (0.98 * took(tiles), took(tiles), 1.02 * took(tiles))
            for tiles in candidates(shape)
        }
    )


@pytest.mark.parametrize(("pair", "split"), [(0.5, 1024), (0.99, 512)])
def test_attention_has_one_pair_for_every_step(pair: float, split: int) -> None:
    """Chosen over all shapes, beyond the spread; the rest is compared within that pair."""
    found = {
        each.of: each for each in recommend(SHAPES, lambda shape: timed(shape, pair=pair, tall=0.7))
    }
    both = found["both modes; split and block_n; heads of 128"]
    assert both.beyond is (split == 1024)
    assert both.current == "block_n=64 split=512"
    prefill = found["fast; Prefill; heads of 128"]
    assert prefill.beyond
    assert f" split={split} " in prefill.winner
    assert " warps=8 " in prefill.winner
    decode = found["fast; Decode; heads of 128"]
    assert decode.beyond is (split == 1024)
    assert f" split={split} " in decode.winner
    invariant = found["invariant; every batch; heads of 128"]
    assert invariant.cases == len(SHAPES)
    assert {label(current(shape, invariant=True)) for shape in SHAPES} == {invariant.current}

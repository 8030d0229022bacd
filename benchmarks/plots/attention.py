"""Paged attention beside vLLM's unified kernel and torch's, on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from benchmarks.gpu.providers import OURS
from benchmarks.gpu.sequences import all_shapes
from benchmarks.plots import ratios, runs, style
from benchmarks.plots.ratios import Look

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.gpu.sequences import Shape

HEADS = 32
LOOKS = {
    "vLLM unified": Look(style.BLUE, "o", "vLLM unified"),
    "torch SDPA, contiguous": Look(style.RED, "D", "torch SDPA, keys contiguous before the clock"),
    "Aril invariant": Look(style.BLACK, "P", "Aril invariant", ":"),
}


def draw(results: Path, out: Path) -> list[Path]:
    """Draw attention-peers.png: decodes by their keys, then prompts and mixed batches.

    Raises FileNotFoundError where attention was not measured on a GPU.
    """
    rows = runs.newest(results, "attention_gpu")
    times = runs.times_of(rows)
    shapes = [shape for shape in all_shapes() if shape.heads == HEADS and _key(shape) in times]
    if not shapes:
        return []
    decodes = [shape for shape in shapes if is_decode(shape)]
    others = [shape for shape in shapes if not is_decode(shape)]
    picture = Figure(figsize=(style.INCHES, 6.8), layout="constrained")
    grid = picture.subplots(2, 2, sharey=True)
    for axes, keys in zip(grid.flat, (512, 2048, 8192), strict=False):
        _draw_decodes(axes, keys, decodes, times)
    _draw_others(grid[1, 1], others, times)
    ratios.label_y(grid[0, 0])
    for axes in grid[:, 0]:
        axes.set_ylabel(f"times the time of {OURS}")
    drawn = {name for shape in shapes for name in ratios.over_ours(times[_key(shape)])}
    ratios.legend(grid[0, 0], drawn, LOOKS)
    heads = f"{HEADS} heads over {shapes[0].kv_heads}"
    ratios.dress(
        picture,
        title=f"Paged attention, {heads}: over 1, {OURS} is faster",
        note=f"{ratios.IN_GRAPHS}; {runs.origin(rows)}",
        columns=3,
    )
    return [style.save(picture, out, "attention-peers")]


def is_decode(shape: Shape) -> bool:
    """Say whether each sequence has one new token."""
    return all(queries == 1 for queries, _ in shape.sequences)


def _key(shape: Shape) -> tuple[str, str]:
    return shape.config, str(shape.rows)


def _draw_decodes(axes: Axes, keys: int, decodes: list[Shape], times: runs.Times) -> None:
    own = {shape.rows: times[_key(shape)] for shape in decodes if shape.sequences[0] == (1, keys)}
    ratios.plot(axes, ratios.curves(own), LOOKS)
    axes.set_title(f"Decode, {keys:,} keys a sequence", fontsize=10)
    axes.set_xlabel("sequences")
    ratios.label_x(axes, (1, 4, 16, 64))


def _draw_others(axes: Axes, others: list[Shape], times: runs.Times) -> None:
    """Put each batch at a place of its own; nothing lies between them, so no line joins them."""
    axes.axhline(1, color=style.BLACK, linewidth=1.2)
    for shift, (name, look) in zip((-0.15, 0, 0.15), LOOKS.items(), strict=True):
        found = {
            place: ratio
            for place, shape in enumerate(others)
            if (ratio := ratios.over_ours(times[_key(shape)]).get(name)) is not None
        }
        axes.errorbar(
            [place + shift for place in found],
            [ratio.p50 for ratio in found.values()],
            yerr=style.whiskers(found.values()),
            color=look.colour,
            marker=look.mark,
            markersize=5,
            linestyle="none",
        )
    axes.set_title("Prompts, and prompts among decodes", fontsize=10)
    axes.set_xticks(
        range(len(others)),
        [shape.name for shape in others],
        rotation=20,
        ha="right",
        fontsize=8,
    )
    axes.set_xlim(-0.5, max(len(others), 1) - 0.5)

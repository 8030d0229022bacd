"""What the exactly-once protocol costs, as a share of the same worker without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.plots import style

if TYPE_CHECKING:
    from pathlib import Path

FIGURES = {  # metric: colour, mark, label
    "ratio of tokens/s": (style.BLUE, "o", "tokens a second"),
    "ratio of CPU": (style.RED, "s", "CPU time of the worker, a token"),
}
GOAL_PERCENT = 2


def draw(results: Path, out: Path) -> list[Path]:
    """Draw protocol_cost.png."""
    rows = style.read(results / "protocol_cost.csv")
    loads = list(dict.fromkeys(row["x"] for row in rows))
    picture, axes = style.figure(3.2, note=style.origin(rows[0]))
    axes.axvspan(-GOAL_PERCENT, GOAL_PERCENT, color=style.GREEN, alpha=0.15, linewidth=0)
    axes.axvline(0, color=style.GREY, linewidth=1)
    for shift, (metric, (colour, mark, label)) in zip((-0.15, 0.15), FIGURES.items(), strict=True):
        spans = [
            style.Span(*(100 * (float(row[name]) - 1) for name in ("p50", "p20", "p80")))
            for row in rows
            if row["metric"] == metric
        ]
        axes.errorbar(
            [each.p50 for each in spans],
            [place + shift for place in range(len(loads))],
            xerr=style.whiskers(spans),
            color=colour,
            marker=mark,
            linestyle="none",
            capsize=4,
            label=label,
        )
    axes.set_yticks(range(len(loads)), loads)
    axes.set_ylim(len(loads) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_formatter("{x:+.0f} %")
    axes.set(
        title="With the protocol, compared with the same worker without it",
        xlabel=f"p50 and p20 to p80 of neighbouring runs; green: the goal of {GOAL_PERCENT} %",
    )
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return [style.save(picture, out, "protocol_cost")]

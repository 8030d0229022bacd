"""Times over Aril's: divided, and drawn with a band from p20 to p80."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

from benchmarks.gpu.cases import ROWS
from benchmarks.gpu.providers import OURS
from benchmarks.plots import style
from benchmarks.plots.style import Span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes

    from benchmarks.gpu.workloads import Workload

    Curves = dict[str, dict[float, Span]]  # provider: ratio by x

TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
IN_GRAPHS = "in a CUDA graph, cold L2; p50 and p20 to p80 over Aril's p50"
LEAST = (0.4, 2.5)  # shown at least, so that a small difference looks small


class Look(NamedTuple):
    """How a provider is drawn, and what the legend calls it."""

    colour: str
    mark: str
    label: str
    line: str = "-"


def over_ours(times: Mapping[str, Span]) -> dict[str, Span]:
    """Divide one case's times by our p50; empty where we have no time.

    The CSV has no ratios within a repetition: the span is that of the other's time alone.
    """
    own = times.get(OURS)
    if own is None:
        return {}
    return {name: Span(*(each / own.p50 for each in span)) for name, span in times.items()}


def curves(cases: Mapping[int, Mapping[str, Span]]) -> Curves:
    """Turn times by x and provider into ratios by provider and x."""
    found: Curves = {}
    for x, times in cases.items():
        for name, ratio in over_ours(times).items():
            found.setdefault(name, {})[x] = ratio
    return found


def plot(axes: Axes, found: Curves, looks: Mapping[str, Look]) -> None:
    """Draw those that have a look, on logarithmic axes with a line at Aril's own time."""
    axes.set(xscale="log", yscale="log")
    axes.axhline(1, color=style.BLACK, linewidth=1.2)
    for name, look in looks.items():
        spans = sorted(found.get(name, {}).items())
        if not spans:
            continue
        x = [each for each, _ in spans]
        low, high = ([getattr(span, end) for _, span in spans] for end in ("p20", "p80"))
        axes.fill_between(x, low, high, color=look.colour, alpha=0.2, lw=0)
        middle = [span.p50 for _, span in spans]
        axes.plot(x, middle, color=look.colour, marker=look.mark, linestyle=look.line, markersize=5)


def workloads(
    found: Mapping[Workload, Curves], looks: Mapping[str, Look], *, height: float, over: str
) -> tuple[Figure, dict[Workload, Axes]]:
    """Draw a panel for each way to share adapters, over rows: who is over 1 takes longer."""
    picture = Figure(figsize=(style.INCHES, height), layout="constrained")
    grid = picture.subplots(2, 2, sharex=True, sharey=True)
    panels = dict(zip(found, grid.flat, strict=True))
    for workload, axes in panels.items():
        plot(axes, found[workload], looks)
        axes.set_title(str(workload), fontsize=10)
    label_x(grid[0, 0], ROWS)
    for axes in grid[:, 0]:
        axes.set_ylabel(f"times the time of {over}")
    for axes in grid[1]:
        axes.set_xlabel("rows in the batch")
    return picture, panels


def label_x(axes: Axes, ticks: Iterable[float]) -> None:
    """Name exactly these sizes."""
    sizes = list(ticks)
    axes.set_xticks(sizes, [f"{each:g}" for each in sizes])
    axes.xaxis.set_minor_locator(NullLocator())


def label_y(axes: Axes) -> None:
    """Mark round ratios; call it when all curves are drawn, limits follow them."""
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, LEAST[0]), max(high, LEAST[1]))
    axes.yaxis.set_major_locator(FixedLocator(list(TICKS)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def legend(axes: Axes, drawn: Iterable[str], looks: Mapping[str, Look]) -> None:
    """Name those that were drawn, in the order of their looks."""
    names = set(drawn)
    for name, look in looks.items():
        if name in names:
            axes.plot(
                [], [], color=look.colour, marker=look.mark, linestyle=look.line, label=look.label
            )


def dress(picture: Figure, *, title: str, note: str, columns: int) -> None:
    """Give a picture its title, the legend below that, and a note at its foot."""
    picture.legend(
        title=title,
        loc="outside upper left",
        alignment="left",
        title_fontsize=11,
        ncols=columns,
        fontsize=9,
    )
    picture.supxlabel(note, x=0.99, ha="right", fontsize=8, color=style.GREY)

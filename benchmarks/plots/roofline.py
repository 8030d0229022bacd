"""The roofline of one SGMV call: where each way to share adapters runs into which ceiling.

Drawn from the byte model with the maker's figures for an H100 while there are no measurements;
with sgmv_gpu.csv and gpu_roofs.csv from the measured ceilings, and the measured calls beside them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from matplotlib.figure import Figure
from matplotlib.transforms import offset_copy

from aril.kernels.sgmv.cost import H100_SXM, Roofs, sgmv_cost
from benchmarks.gpu import cost
from benchmarks.gpu.cases import ROWS as TOKENS
from benchmarks.gpu.providers import OURS
from benchmarks.gpu.roofs import roofs_of
from benchmarks.gpu.workloads import PUNICA, Workload, decode_case
from benchmarks.plots import labels, runs, style
from benchmarks.plots.runs import RANK

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from aril.kernels.sgmv.cost import Cost

NAMED_TOKENS = (1, 64, 16, 4)  # the first have the first choice of a place
FIRST, LAST = 0.6, 14.0  # flops per byte
LOWEST, HIGHEST = 0.02, 40.0  # TFLOP/s
COLOURS = dict(zip(Workload, (style.BLUE, style.GREEN, style.PINK, style.RED), strict=True))
MARKS = dict(zip(Workload, "osD^", strict=True))
# Where the numbers of tokens may stand, in points from theirs: below a curve, or above; beside one
# that goes straight up; where the rank's limit is near, also behind it.
BESIDE: dict[Workload, tuple[labels.Offset, ...]] = {
    Workload.DISTINCT: ((8, 0), (-8, 9), (8, -5), (7, -9)),
    Workload.UNIFORM: ((7, -8), (8, -4), (-8, 6)),
    Workload.SKEWED: ((7, -8), (8, -4), (-8, 6)),
    Workload.IDENTICAL: ((7, -8), (8, -4), (-8, 6), (15, 0)),
}
ASIDE = -7.0  # points between measured and attainable, which would cover each other
EXPLAIN = {
    Workload.DISTINCT: "each token its own adapter",
    Workload.UNIFORM: "√n adapters, even",
    Workload.SKEWED: "few large, many small",
    Workload.IDENTICAL: "one adapter for all",
}


class Ceilings(NamedTuple):
    """What the picture is drawn against, and in what words."""

    roofs: Roofs
    source: str
    predicted: bool


def draw(results: Path, out: Path) -> list[Path]:
    """Draw sgmv-roofline.png, from the model alone where nothing was measured."""
    return [style.save(make(results), out, "sgmv-roofline")]


def make(results: Path) -> Figure:
    """Make the picture, at the resolution that it is saved with: places of labels depend on it."""
    ceilings, measured = measurements(results)
    picture = Figure(figsize=(style.INCHES, 9.4), dpi=style.DOTS_PER_INCH, layout="constrained")
    grid = picture.add_gridspec(3, 2, height_ratios=(1, 1, 0.85))
    first: Axes | None = None
    facets: dict[Workload, Axes] = {}
    for number, workload in enumerate(Workload):
        axes = picture.add_subplot(grid[number // 2, number % 2], sharex=first, sharey=first)
        first = first or axes
        facets[workload] = axes
        _draw_facet(axes, workload, ceilings, measured)
        if number % 2 == 0:
            axes.set_ylabel("TFLOP/s")
        if number // 2:
            axes.set_xlabel("flops per byte")
    _draw_shares(picture.add_subplot(grid[2, :]), ceilings, measured)
    kind = (
        "predicted by the byte model"
        if ceilings.predicted
        else "attainable (hollow), measured (filled, put to the left)"
    )
    picture.suptitle(
        f"One SGMV call, {PUNICA.sizes.replace(' to ', ' → ')}, rank {RANK}, 16-bit: {kind}\n"
        "With one token nothing can be shared: the first point is the same in all four.",
        x=0.01,
        ha="left",
        fontsize=11,
    )
    picture.supxlabel(ceilings.source, x=0.99, ha="right", fontsize=8, color=style.GREY)
    picture.draw_without_rendering()
    for workload, axes in facets.items():
        _name_tokens(axes, workload, ceilings.roofs)
    return picture


def cost_of(workload: Workload, tokens: int) -> Cost:
    """Count one call."""
    return cost.cost_of(decode_case(workload, PUNICA, tokens, RANK))


def rank_limit() -> float:
    """Flops per byte that no batch can pass at this rank: only x and y are left to be moved."""
    rows = 10**9
    return sgmv_cost(
        {0: rows}, {0: [RANK]}, in_features=PUNICA.in_features, widths=PUNICA.widths
    ).intensity


def measurements(results: Path) -> tuple[Ceilings, dict[Workload, dict[int, style.Span]]]:
    """Read the ceilings and the times a call in microseconds, or fall back to the datasheet."""
    words = "No GPU was measured: H100 SXM's datasheet, 3.35 TB/s; 2 µs a launch is assumed"
    unmeasured = Ceilings(H100_SXM, words, predicted=True)
    try:
        rows = runs.newest(results, "sgmv_gpu")
        roof_rows = runs.newest(results, "gpu_roofs")
    except FileNotFoundError:
        return unmeasured, {}
    roofs = roofs_of(roof_rows)
    if roofs is None or roof_rows[-1].device != rows[-1].device:
        return unmeasured, {}
    times = runs.times_of(rows)
    measured = {
        workload: {tokens: by_name[OURS] for tokens, by_name in cases.items() if OURS in by_name}
        for workload, cases in runs.decodes(times, PUNICA).items()
    }
    return Ceilings(roofs, runs.origin(rows), predicted=False), measured


def _draw_facet(
    axes: Axes,
    workload: Workload,
    ceilings: Ceilings,
    measured: dict[Workload, dict[int, style.Span]],
) -> None:
    roofs = ceilings.roofs
    colour = COLOURS[workload]
    axes.set(xscale="log", yscale="log", xlim=(FIRST, LAST), ylim=(LOWEST, HIGHEST))
    axes.set_title(f"{workload}: {EXPLAIN[workload]}", fontsize=10)
    axes.set_xticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.minorticks_off()
    axes.set_yticks([0.1, 1, 10], ["0.1", "1", "10"])
    _draw_ceilings(axes, roofs)
    costs = {tokens: cost_of(workload, tokens) for tokens in TOKENS}
    x = [each.intensity for each in costs.values()]
    # Drawn on beyond the last point, to be seen where it leaves the points.
    beyond = [*costs.values(), *(cost_of(workload, tokens) for tokens in (128, 256, 512))]
    axes.plot(
        [each.intensity for each in beyond],
        [each.flops / (2 * roofs.launch) / 1e12 for each in beyond],
        color=style.GREY,
        linestyle=":",
        linewidth=2,
    )
    own = [each.flops / roofs.seconds(each) / 1e12 for each in costs.values()]
    hollow = "white" if not ceilings.predicted else colour
    axes.plot(x, own, color=colour, marker=MARKS[workload], markersize=6, mfc=hollow)
    times = measured.get(workload, {})
    axes.plot(
        [costs[tokens].intensity for tokens in times],
        [costs[tokens].flops / span.p50 / 1e6 for tokens, span in times.items()],
        color=colour,
        marker=MARKS[workload],
        markersize=6,
        linewidth=1,
        transform=offset_copy(axes.transData, axes.get_figure(root=True), x=ASIDE, units="points"),
    )
    _name_launch_ceiling(axes, costs[2], roofs)


def _name_tokens(axes: Axes, workload: Workload, roofs: Roofs) -> None:
    """Write the numbers of tokens beside the attainable points, where there is room."""
    names = []
    for tokens in NAMED_TOKENS:
        cost = cost_of(workload, tokens)
        rate = cost.flops / roofs.seconds(cost) / 1e12
        names.append((str(tokens) if tokens > 1 else "1 token", (cost.intensity, rate)))
    labels.place(axes, names, BESIDE[workload], colour=COLOURS[workload])


def _draw_ceilings(axes: Axes, roofs: Roofs) -> None:
    axes.plot(
        [FIRST, LAST],
        [roofs.memory * each / 1e12 for each in (FIRST, LAST)],
        color=style.BLACK,
        linewidth=1.6,
    )
    axes.annotate(
        f"memory roof, {roofs.memory / 1e12:.3g} TB/s",
        (1.6, roofs.memory * 1.6 / 1e12),
        xytext=(0, 5),
        textcoords="offset points",
        rotation=_slope(axes),
        rotation_mode="anchor",
        fontsize=9,
    )
    axes.axvline(rank_limit(), color=style.ORANGE, linestyle="--", linewidth=1.6)
    axes.annotate(
        f"limit of rank {RANK}",
        (rank_limit(), LOWEST * 1.25),
        xytext=(4, 0),
        textcoords="offset points",
        rotation=90,
        fontsize=9,
        color=style.ORANGE,
    )


def _name_launch_ceiling(axes: Axes, cost: Cost, roofs: Roofs) -> None:
    """Say in the empty corner what the dotted line is."""
    axes.annotate(
        f"launch ceiling:\n2 kernels of {roofs.launch * 1e6:.1f} µs",
        (cost.intensity, cost.flops / (2 * roofs.launch) / 1e12),
        xytext=(0.82, 0.09),
        textcoords="axes fraction",
        ha="right",
        fontsize=9,
        color=style.GREY,
        arrowprops={"arrowstyle": "-", "color": style.GREY, "linewidth": 0.8, "shrinkB": 5},
    )


def _slope(axes: Axes) -> float:
    """Return the angle on paper of a line with slope 1 in these log axes, about."""
    box = axes.get_position()
    width, height = axes.figure.get_size_inches()  # type: ignore[union-attr]
    across = box.width * width / math.log10(LAST / FIRST)
    up = box.height * height / math.log10(HIGHEST / LOWEST)
    return math.degrees(math.atan2(up, across))


def _draw_shares(
    axes: Axes, ceilings: Ceilings, measured: dict[Workload, dict[int, style.Span]]
) -> None:
    """Below the facets: how much of what is attainable was reached, or what launches leave."""
    roofs = ceilings.roofs
    for workload in Workload:
        costs = {tokens: cost_of(workload, tokens) for tokens in TOKENS}
        colour, mark = COLOURS[workload], MARKS[workload]
        if ceilings.predicted:
            shares = [
                100 * each.bytes / roofs.memory / roofs.seconds(each) for each in costs.values()
            ]
            axes.plot(TOKENS, shares, color=colour, marker=mark, label=str(workload))
            continue
        attained = {
            tokens: style.Span(
                *(
                    1e8 * roofs.seconds(costs[tokens]) / took
                    for took in (span.p50, span.p80, span.p20)
                )
            )
            for tokens, span in measured.get(workload, {}).items()
        }
        axes.errorbar(
            list(attained),
            [each.p50 for each in attained.values()],
            yerr=style.whiskers(attained.values()),
            color=colour,
            marker=mark,
            capsize=3,
            label=str(workload),
        )
    if ceilings.predicted:
        axes.set_title("How much of the memory roof the launches leave in reach", fontsize=10)
    else:
        axes.set_title(f"% of attainable: {OURS} against the lowest ceiling", fontsize=10)
    axes.set(xscale="log", ylim=(0, 125), xlabel="tokens in the batch", ylabel="%")
    axes.set_xticks(TOKENS, [str(each) for each in TOKENS])
    axes.minorticks_off()
    axes.set_yticks(range(0, 101, 20))
    axes.legend(loc="upper left", ncols=len(Workload), fontsize=9)

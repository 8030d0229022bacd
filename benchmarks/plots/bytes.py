"""What the ways to add LoRA products have to move, and the time they take on a CPU beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from benchmarks.gpu.workloads import PUNICA, Workload, decode_case, parse_config
from benchmarks.plots import style
from kernels.sgmv.cost import gather_bmm_cost, gathered_bmm_cost, sgmv_cost

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from kernels.sgmv.cost import Cost

TOKENS = (1, 2, 4, 8, 16, 32, 64)
RANK = 16
# provider: colour, mark, how it is named, and its bytes, where the model has them
WAYS: dict[str, tuple[str, str, str, Callable[..., Cost] | None]] = {
    "per-adapter loop": (style.GREEN, "s", "loop over adapters", None),
    "Gather-BMM": (style.RED, "D", "Gather-BMM", gather_bmm_cost),
    "BMM, gathered before": (
        style.SKY,
        "^",
        "BMM alone, weights gathered before the clock",
        gathered_bmm_cost,
    ),
    "torch.mm, one adapter": (style.GREY, "v", "torch.mm, one adapter for all", None),
}


def draw(results: Path, out: Path) -> list[Path]:
    """Draw sgmv-ways.png: time over that of SGMV, measured; bytes over those of SGMV, counted."""
    rows = style.read(results / "sgmv_cpu.csv")
    picture = Figure(figsize=(style.INCHES, 6.6), layout="constrained")
    grid = picture.subplots(2, 2, sharex=True, sharey=True)
    for axes, workload in zip(grid.flat, Workload, strict=True):
        _draw_workload(axes, workload, rows)
    for axes in grid[:, 0]:
        axes.set_ylabel("times the time of SGMV")
    for axes in grid[1]:
        axes.set_xlabel("rows in the batch")
    for colour, mark, label, _ in WAYS.values():
        grid[0, 0].plot([], [], color=colour, marker=mark, label=label)
    grid[0, 0].plot([], [], color=style.BLACK, linestyle=":", label="the same, by bytes alone")
    picture.legend(loc="outside upper left", ncols=2, fontsize=9)
    config = parse_config(rows[0]["config"])
    picture.supxlabel(
        f"{config['sizes']}, rank {RANK}, {config['dtype']}; p50, p20 to p80; "
        f"{style.origin(rows[0])}",
        x=0.99,
        ha="right",
        fontsize=8,
        color=style.GREY,
    )
    return [style.save(picture, out, "sgmv-ways")]


def _draw_workload(axes: Axes, workload: Workload, rows: list[dict[str, str]]) -> None:
    # With one row all four are one case, measured once.
    own = [
        row
        for row in rows
        if (named := parse_config(row["config"]))["layer"] == PUNICA.name
        and (named["workload"] == workload or row["x"] == "1")
    ]
    axes.axhline(1, color=style.BLACK, linewidth=1.2)
    for provider, (colour, mark, _, count) in WAYS.items():
        found = style.spans(own, provider, "time over that of Aril")
        x = sorted(found)
        axes.fill_between(
            x, [found[n].p20 for n in x], [found[n].p80 for n in x], color=colour, alpha=0.2, lw=0
        )
        axes.plot(x, [found[n].p50 for n in x], color=colour, marker=mark, markersize=5)
        if count is not None:
            ratios = [_bytes_ratio(count, workload, tokens) for tokens in TOKENS]
            axes.plot(TOKENS, ratios, color=colour, linestyle=":", linewidth=2)
    axes.set(xscale="log", yscale="log")
    axes.set_title(str(workload), fontsize=10)
    axes.set_xticks(TOKENS, [str(each) for each in TOKENS])
    axes.set_yticks([0.1, 0.5, 1, 2, 5, 10, 20], ["0.1", "½", "1", "2", "5", "10", "20"])
    axes.minorticks_off()


def _bytes_ratio(count: Callable[..., Cost], workload: Workload, tokens: int) -> float:
    case = decode_case(workload, PUNICA, tokens, RANK)
    operands = {
        "in_features": PUNICA.in_features,
        "widths": PUNICA.widths,
        "element_bytes": 4,
    }
    theirs = count(case.segments, case.slice_ranks, **operands)
    return theirs.bytes / sgmv_cost(case.segments, case.slice_ranks, **operands).bytes  # type: ignore[arg-type]

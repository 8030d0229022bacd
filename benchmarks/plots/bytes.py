"""What the ways to add LoRA products have to move, and beside it the time that they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aril.kernels.sgmv.cost import gather_bmm_cost, gathered_bmm_cost, sgmv_cost
from benchmarks.gpu.cases import ROWS
from benchmarks.gpu.cost import cost_of
from benchmarks.gpu.workloads import PUNICA, Workload, decode_case, parse_config
from benchmarks.plots import ratios, runs, style
from benchmarks.plots.ratios import Look

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aril.kernels.sgmv.cost import Cost
    from benchmarks.plots.ratios import Curves

WAYS = {
    "per-adapter loop": Look(style.GREEN, "s", "loop over adapters"),
    "Gather-BMM": Look(style.RED, "D", "Gather-BMM"),
    "BMM, gathered before": Look(style.SKY, "^", "BMM alone, weights gathered before the clock"),
    "torch.mm, one adapter": Look(style.GREY, "v", "torch.mm, one adapter for all"),
}
# The model has the bytes of these.
COUNTED: dict[str, Callable[..., Cost]] = {
    "Gather-BMM": gather_bmm_cost,
    "BMM, gathered before": gathered_bmm_cost,
}


class Measured(NamedTuple):
    """Times over SGMV's on one device."""

    curves: dict[Workload, Curves]
    place: str  # "a CPU" or "a GPU"
    origin: str
    dtype: str
    element_bytes: int


def draw(results: Path, out: Path) -> list[Path]:
    """Draw sgmv-ways.png: time over that of SGMV, measured; bytes over those of SGMV, counted.

    On a GPU where that was measured, else on a CPU. Raises FileNotFoundError without either.
    """
    measured = on_gpu(results) or on_cpu(results)
    picture, panels = ratios.workloads(measured.curves, WAYS, height=7.0, over="SGMV")
    for workload, axes in panels.items():
        for provider, count in COUNTED.items():
            counted = [bytes_ratio(count, workload, rows, measured.element_bytes) for rows in ROWS]
            colour = WAYS[provider].colour
            axes.plot(ROWS, counted, color=colour, linestyle=":", linewidth=2)
    first = panels[Workload.DISTINCT]
    ratios.label_y(first)
    ratios.legend(first, WAYS, WAYS)
    first.plot([], [], color=style.BLACK, linestyle=":", label="the same, by bytes alone")
    ratios.dress(
        picture,
        title=f"Measured on {measured.place}: over 1, SGMV is faster",
        note=f"{PUNICA.sizes}, rank {runs.RANK}, {measured.dtype}; p50, p20 to p80; "
        f"{measured.origin}",
        columns=2,
    )
    return [style.save(picture, out, "sgmv-ways")]


def on_gpu(results: Path) -> Measured | None:
    """Divide the times in a graph; None where there are none of this shape."""
    try:
        rows = runs.newest(results, "sgmv_gpu")
    except FileNotFoundError:
        return None
    found = runs.decodes(runs.times_of(rows), PUNICA)
    curves = {workload: ratios.curves(cases) for workload, cases in found.items()}
    if not any(curves.values()):
        return None
    return Measured(curves, "a GPU", runs.origin(rows), "bfloat16", element_bytes=2)


def on_cpu(results: Path) -> Measured:
    """Take the ratios as they were measured, within each repetition. Raises FileNotFoundError."""
    rows = style.read(results / "sgmv_cpu.csv")
    curves = {}
    for workload in Workload:
        # With one row all four are one case, measured once.
        own = [
            row
            for row in rows
            if (named := parse_config(row["config"]))["layer"] == PUNICA.name
            and (named["workload"] == workload or row["x"] == "1")
        ]
        curves[workload] = {
            provider: style.spans(own, provider, "time over that of Aril") for provider in WAYS
        }
    dtype = parse_config(rows[0]["config"])["dtype"]
    return Measured(curves, "a CPU", style.origin(rows[0]), dtype, element_bytes=4)


def bytes_ratio(
    count: Callable[..., Cost], workload: Workload, rows: int, element_bytes: int
) -> float:
    """Count what one way moves over what SGMV moves."""
    case = decode_case(workload, PUNICA, rows, runs.RANK)
    theirs, ours = (cost_of(case, each, element_bytes=element_bytes) for each in (count, sgmv_cost))
    return theirs.bytes / ours.bytes

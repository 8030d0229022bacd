"""The operator beside vLLM's and SGLang's on a GPU, for each way to share adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from benchmarks.gpu.workloads import LLAMA_8B, PUNICA, Workload
from benchmarks.plots import ratios, runs, style
from benchmarks.plots.ratios import Look

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.gpu.workloads import Layer
    from benchmarks.plots.ratios import Curves

ROWS = (1, 2, 4, 8, 16, 32, 64)
LAYERS = {"sgmv-peers": PUNICA, "sgmv-peers-qkv": LLAMA_8B[0]}
PEERS = {
    "vLLM": Look(style.BLUE, "o", "vLLM"),
    "vLLM batch-invariant": Look(style.SKY, "s", "vLLM batch-invariant"),
    "SGLang triton": Look(style.RED, "D", "SGLang triton"),
    "SGLang csgmv": Look(style.ORANGE, "^", "SGLang csgmv"),
    "SGLang triton_v2": Look(style.PINK, "v", "SGLang triton_v2"),
}
OUR_OTHERS = {
    "Aril invariant": Look(style.BLACK, "P", "Aril invariant", ":"),
    "Aril fast, static plan": Look(style.GREEN, "X", "Aril fast, static plan", ":"),
    "Aril, as served": Look(style.GREY, "*", "Aril, as served", ":"),
}
LOOKS = PEERS | OUR_OTHERS


def draw(results: Path, out: Path) -> list[Path]:
    """Draw sgmv-peers.png and sgmv-peers-qkv.png, those of them that have figures.

    Raises FileNotFoundError where the operator was not measured on a GPU.
    """
    rows = runs.newest(results, "sgmv_gpu")
    times = runs.times_of(rows)
    drawn = []
    for name, layer in LAYERS.items():
        found = {
            workload: ratios.curves(
                {size: runs.of_decode(times, workload, layer, size) for size in ROWS}
            )
            for workload in Workload
        }
        if any(found.values()):
            note = f"{rows[-1].device}, {rows[-1].date}"
            drawn.append(style.save(_picture(layer, found, note), out, name))
    return drawn


def _picture(layer: Layer, found: dict[Workload, Curves], note: str) -> Figure:
    picture = Figure(figsize=(style.INCHES, 6.8), layout="constrained")
    grid = picture.subplots(2, 2, sharex=True, sharey=True)
    for axes, (workload, curves) in zip(grid.flat, found.items(), strict=True):
        ratios.plot(axes, curves, LOOKS)
        axes.set_title(str(workload), fontsize=10)
    ratios.label_x(grid[0, 0], ROWS)
    ratios.label_y(grid[0, 0])
    for axes in grid[:, 0]:
        axes.set_ylabel(f"times the time of {runs.OURS}")
    for axes in grid[1]:
        axes.set_xlabel("rows in the batch")
    ratios.legend(grid[0, 0], {name for each in found.values() for name in each}, LOOKS)
    sizes = layer.sizes.replace(" to ", " → ")
    ratios.dress(
        picture,
        title=f"{layer.name}, {sizes}, rank {runs.RANK}: over 1, {runs.OURS} is faster",
        note=f"in a CUDA graph, cold L2; p50 and p20 to p80 over Aril's p50; {note}",
        columns=3,
    )
    return picture

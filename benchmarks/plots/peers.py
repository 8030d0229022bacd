"""The operator beside vLLM's and SGLang's on a GPU, for each way to share adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu.providers import OURS
from benchmarks.gpu.workloads import LLAMA_8B, PUNICA, Workload
from benchmarks.plots import ratios, runs, style
from benchmarks.plots.ratios import Look

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure

    from benchmarks.gpu.workloads import Layer
    from benchmarks.plots.ratios import Curves

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
            workload: ratios.curves(cases) for workload, cases in runs.decodes(times, layer).items()
        }
        if any(found.values()):
            picture = _picture(layer, found, runs.origin(rows))
            drawn.append(style.save(picture, out, name))
    return drawn


def _picture(layer: Layer, found: dict[Workload, Curves], origin: str) -> Figure:
    picture, panels = ratios.workloads(found, LOOKS, height=6.8, over=OURS)
    first = panels[Workload.DISTINCT]
    ratios.label_y(first)
    ratios.legend(first, {name for each in found.values() for name in each}, LOOKS)
    sizes = layer.sizes.replace(" to ", " → ")
    ratios.dress(
        picture,
        title=f"{layer.name}, {sizes}, rank {runs.RANK}: over 1, {OURS} is faster",
        note=f"{ratios.IN_GRAPHS}; {origin}",
        columns=3,
    )
    return picture

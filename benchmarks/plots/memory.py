"""A worker's memory beside the model, as jobs go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.plots import style

if TYPE_CHECKING:
    from pathlib import Path


def draw(results: Path, out: Path) -> list[Path]:
    """Draw memory.png."""
    rows = style.read(results / "memory.csv")
    beyond = style.spans(rows, "worker", "beyond weights and KV cache")
    imports = style.spans(rows, "torch and transformers imported", "resident memory")[0].p50
    jobs = sorted(beyond)
    picture, axes = style.figure(3.4, note=style.origin(rows[0]))
    axes.plot(jobs, [beyond[each].p50 for each in jobs], color=style.BLUE, marker="o")
    axes.axhline(imports, color=style.GREY, linestyle="--")
    axes.annotate(
        "a process that has only imported torch and transformers",
        (jobs[-1], imports),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        color=style.GREY,
    )
    axes.set(title="A worker's memory without weights and KV cache", xlabel="jobs", ylabel="MB")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_ylim(bottom=0)
    return [style.save(picture, out, "memory")]

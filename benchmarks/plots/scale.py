"""Throughput with more workers, beside what linear growth would be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.plots import style

if TYPE_CHECKING:
    from pathlib import Path


def draw(results: Path, out: Path) -> list[Path]:
    """Draw scale.png."""
    rows = style.read(results / "scale.csv")
    rates = style.spans(rows, "closed loop", "tokens/s")
    counts = sorted(rates)
    medians = [rates[count].p50 for count in counts]
    picture, axes = style.figure(3.4, note=style.origin(rows[0]))
    linear = [medians[0] / counts[0] * count for count in counts]
    axes.plot(counts, linear, color=style.GREY, linestyle="--", label="linear")
    axes.errorbar(
        counts,
        medians,
        yerr=style.whiskers(rates[count] for count in counts),
        color=style.BLUE,
        marker="o",
        linestyle="none",
        capsize=4,
        label="measured, p20 to p80",
    )
    axes.set(title="More workers", xlabel="worker processes", ylabel="tokens a second")
    axes.set_xticks(counts, [f"{count:.0f}" for count in counts])
    axes.set_ylim(bottom=0)
    axes.legend()
    return [style.save(picture, out, "scale")]

"""What one tenant's flood does to another's first tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.plots import style

if TYPE_CHECKING:
    from pathlib import Path

ALONE, BESIDE = "first token alone, p99", "first token in the flood, p99"
MANY = 10
HEIGHT = 0.38  # of a bar; cases are 1 apart


def draw(results: Path, out: Path) -> list[Path]:
    """Draw fairness.png."""
    rows = style.read(results / "fairness.csv")
    found = {(row["provider"], row["metric"], row["x"]): float(row["p50"]) for row in rows}
    providers = [*dict.fromkeys(provider for provider, metric, _ in found if metric == BESIDE)]
    cases = [*dict.fromkeys(x for _, metric, x in found if metric == BESIDE)]
    picture, axes = style.figure(3.4, note=style.origin(rows[0]))
    places = range(len(cases))
    for number, provider in enumerate(providers):
        shift = (number - (len(providers) - 1) / 2) * HEIGHT
        times = [found[provider, BESIDE, case] for case in cases]
        bars = axes.barh(
            [place + shift for place in places],
            times,
            HEIGHT,
            color=style.COLOURS[number],
            label=provider,
        )
        labels = [
            _times(time / found[provider, ALONE, case])
            for time, case in zip(times, cases, strict=True)
        ]
        axes.bar_label(bars, labels, padding=4, fontsize=8, color=style.GREY)
    axes.set_yticks(places, cases)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(left=10, right=axes.get_xlim()[1] * 8)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.grid(visible=False, axis="y")
    axes.set(title="Another tenant's first token beside a flood of", xlabel="ms, p99")
    axes.legend(loc="upper right")
    return [style.save(picture, out, "fairness")]


def _times(ratio: float) -> str:
    return f"{ratio:.2f} times alone" if ratio < MANY else f"{ratio:,.0f} times alone"

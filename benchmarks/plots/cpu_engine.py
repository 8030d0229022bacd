"""The engine on a CPU beside the same work done with PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.plots import style

if TYPE_CHECKING:
    from pathlib import Path

PROVIDERS = {
    "ours, backbone only": "Aril, backbone only",
    "ours, 4 adapters + backbone": "Aril, 4 adapters + backbone",
    "PEFT generate, adapter_names": "PEFT, one mixed batch",
    "PEFT generate, adapter by adapter": "PEFT, adapter by adapter",
}


def draw(results: Path, out: Path) -> list[Path]:
    """Draw cpu_engine.png."""
    rows = style.read(results / "cpu_engine.csv")
    rates = [style.spans(rows, provider, "tokens/s")[16] for provider in PROVIDERS]
    picture, axes = style.figure(2.8, note=style.origin(rows[0]))
    bars = axes.barh(
        list(PROVIDERS.values()),
        [rate.p50 for rate in rates],
        xerr=style.whiskers(rates),
        color=[style.SKY, style.BLUE, style.ORANGE, style.ORANGE],
        error_kw={"capsize": 4},
    )
    axes.bar_label(bars, fmt="%.0f", padding=6)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(title="16 rows of SmolLM2-135M on a CPU", xlabel="tokens a second")
    return [style.save(picture, out, "cpu_engine")]

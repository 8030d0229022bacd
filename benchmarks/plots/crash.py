"""Streams, token by token, across the kill of the worker that wrote some of them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from benchmarks.plots import style

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

COLOURS = {"killed": style.RED, "survivor": style.BLUE}
LABELS = {"killed": "tokens of the killed worker", "survivor": "tokens of the survivor"}


def draw(results: Path, out: Path) -> list[Path]:
    """Draw crash.png."""
    rows = style.read(results / "crash_timeline.csv")
    streams: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        streams[row["stream"]].append(row)
    picture, axes = style.figure(5.0, note=style.origin(rows[0]))
    session = float(rows[0]["session_seconds"])
    axes.axvspan(0, session, color=style.GREY, alpha=0.15, linewidth=0)
    axes.axvline(0, color=style.BLACK, linewidth=1.2)
    for events in streams.values():
        _draw_stream(axes, events)
    for worker, colour in COLOURS.items():
        axes.plot([], [], color=colour, linewidth=2.5, label=LABELS[worker])
    axes.plot([], [], color=style.GREY, linestyle=":", label="silence")
    axes.plot([], [], "D", color=style.BLACK, markersize=5, label="claim of the survivor")
    axes.legend(loc="lower right")
    top = max(int(row["index"]) for row in rows) * 1.08
    axes.text(0, top, "kill -9 ", va="top", ha="right", fontweight="bold")
    axes.text(session / 2, top, f"session time-out, {session:.0f} s", va="top", ha="center")
    axes.set_ylim(0, top)
    axes.set(
        title="Every token once: streams across a worker's death",
        xlabel="seconds since the kill, as the reader sees it",
        ylabel="token of the stream",
    )
    return [style.save(picture, out, "crash")]


def _draw_stream(axes: Axes, events: list[dict[str, str]]) -> None:
    tokens = [event for event in events if event["event"] == "token"]
    for worker, colour in COLOURS.items():
        own = [event for event in tokens if event["worker"] == worker]
        axes.plot(*_points(own), color=colour, linewidth=2.5, solid_capstyle="butt")
    for claim in (event for event in events if event["event"] == "claim"):
        last = [event for event in tokens if int(event["index"]) < int(claim["index"])][-1:]
        following = tokens[int(claim["index"]) :][:1]
        axes.plot(*_points([*last, *following]), color=style.GREY, linestyle=":")
        axes.plot(*_points([claim]), "D", color=style.BLACK, markersize=5)


def _points(events: list[dict[str, str]]) -> tuple[list[float], list[int]]:
    return [float(event["seconds"]) for event in events], [int(event["index"]) for event in events]

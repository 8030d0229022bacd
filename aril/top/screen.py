"""A group as tables for a terminal, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.console import Group as Stack
from rich.table import Table
from rich.text import Text

from aril.render import printable
from aril.top.view import DRAINING, NOT_READY, OTHER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from aril.top.view import Group, WorkerRow

UNBOUND: Final = 10_000  # columns
UNKNOWN: Final = "-"
WARNING: Final = "yellow"
BAD: Final = "red"
TEN: Final = 10
THOUSAND: Final = 1_000

# Figures of workers and the titles of their columns, in their order.
TITLES: Final = {
    "partitions": "parts",
    "running": "running",
    "waiting": "waiting",
    "lag": "unread",
    "rows": "rows\n/step",
    "adapters": "adapters\n/step",
    "tokens": "tokens\n/s",
    "prompt_tokens": "prompt\n/s",
    "jobs": "jobs\n/s",
    "first_token": "first\ntoken",
    "kv": "kv",
    "takeovers": "taken\nover",
}
MEANS: Final = frozenset({"rows", "adapters", "first_token", "kv"})  # they do not add up
# What a narrow terminal does without, the first of these first.
DISPENSABLE: Final = ("jobs", "adapters", "partitions", "prompt_tokens", "first_token", "kv")


def shown(group: Group, console: Console, *, most: int) -> RenderableType:
    """Return tables of workers, tenants and adapters; `most` rows of the last two each."""
    figures = [*TITLES]
    unbound = console.options.update(max_width=UNBOUND)
    for figure in DISPENSABLE:
        if console.measure(_workers(group, figures), options=unbound).maximum <= console.width:
            break
        figures.remove(figure)
    parts: list[RenderableType] = [_workers(group, figures)]
    broken = (row for row in group.workers if row.problem)
    parts += [_text(f"{row.address}: {row.problem}", BAD) for row in broken]
    if group.tenants:
        parts += ["", _tenants(group, most)]
    if group.adapters:
        parts += ["", _adapters(group, most)]
    return Stack(*parts)


def as_json(group: Group) -> dict[str, Any]:
    """Return all figures, by name; what a worker does not tell is null."""
    figures = [*(figure for figure in TITLES if figure not in MEANS), "waiting_tokens"]
    return {
        "seconds": group.seconds,
        "total": {figure: group.total(figure) for figure in figures},
        "workers": [asdict(row) for row in group.workers],
        "tenants": [asdict(row) for row in group.tenants],
        "adapters": [asdict(row) for row in group.adapters],
    }


def _table(first: str, *titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True, vertical="bottom")
    for title in titles:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def _workers(group: Group, figures: Sequence[str]) -> Table:
    table = _table("worker", "state", *(TITLES[figure] for figure in figures))
    for row in group.workers:
        cells = [row.state, *(_cell(figure, getattr(row, figure)) for figure in figures)]
        table.add_row(_text(row.address), *cells, style=_style(row))
    if len(group.workers) > 1:
        sums = ["" if each in MEANS else _cell(each, group.total(each)) for each in figures]
        table.add_row("all", "", *sums, style="bold")
    return table


def _cell(figure: str, value: float | None) -> str:
    shown_as = {"first_token": seconds, "kv": percent}.get(figure, number)
    return shown_as(value)


def _style(row: WorkerRow) -> str:
    if row.problem or row.state == NOT_READY:
        return BAD
    return WARNING if row.state == DRAINING else ""


def _tenants(group: Group, most: int) -> Table:
    table = _table("tenant", "running", "waiting", "tokens/s", "prompt/s", "jobs/s")
    for row in group.tenants[:most]:
        figures = (row.running, row.waiting, row.tokens, row.prompt_tokens, row.jobs)
        table.add_row(_text(_named(row.name)), *map(number, figures))
    return _with_rest(table, len(group.tenants) - most)


def _adapters(group: Group, most: int) -> Table:
    table = _table("adapter", "in slots of", "in memory of", "jobs/s")
    for row in group.adapters[:most]:
        table.add_row(_text(_named(row.name)), *map(number, (row.device, row.host, row.jobs)))
    return _with_rest(table, len(group.adapters) - most)


def _with_rest(table: Table, rest: int) -> Table:
    if rest > 0:
        table.add_row(Text(f"{rest} more", style="dim"))
    return table


def _named(name: str) -> str:
    return "all others" if name == OTHER else name


def _text(text: str, style: str = "") -> Text:
    """Return what others wrote: no markup, nothing that a terminal would obey."""
    return Text(printable(text), style=style)


def number(value: float | None) -> str:
    """Return a figure in few characters: a digit behind the point where it is small."""
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if 0 < value < TEN and value % 1 else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """Return a time as milliseconds or seconds."""
    if value is None:
        return UNKNOWN
    return f"{value * THOUSAND:.0f} ms" if value < 1 else f"{value:.1f} s"


def percent(value: float | None) -> str:
    """Return a share of 1 in per cent."""
    return UNKNOWN if value is None else f"{value:.0%}"

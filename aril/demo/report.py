"""What the demo says at its end: the voices, and the figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from aril.demo.measure import StepCounts, read_histogram, summarise
from aril.demo.tenants import SAME_QUESTION

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from aril.demo.board import Shown
    from aril.demo.measure import JobTimes
    from aril.demo.tenants import DemoTenant

MS: Final = 1_000
INDENT: Final = "  "


def show_voices(console: Console, jobs: Sequence[Shown]) -> None:
    """Print every tenant's answer to the question that all of them asked."""
    console.print(f"\n[bold]The same question to each:[/] {SAME_QUESTION}")
    for job in jobs:
        if job.question == SAME_QUESTION:
            tenant = job.tenant
            name = tenant.adapter or "no adapter"
            console.print(Text(f"{tenant.name} ({name})", style=f"bold {tenant.style}"))
            answer = Text(job.answer.strip(), style=tenant.style)
            for line in answer.wrap(console, console.width - len(INDENT)):
                line.rstrip()
                console.print(Text(INDENT) + line)


def show_figures(
    console: Console, times: Mapping[DemoTenant, Sequence[JobTimes]], before: str, after: str
) -> None:
    """Print a row a tenant, one for all of them, and what the worker's steps were like."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("tenant")
    table.add_column("adapter")
    for title in (
        "jobs",
        "tokens",
        "tokens/s",
        "first token\np50 / p95",
        "between tokens\np50 / p95",
    ):
        table.add_column(title, justify="right")
    for tenant, jobs in times.items():
        _row(table, tenant.name, tenant.adapter or "-", jobs, style=tenant.style)
    everyone = [job for jobs in times.values() for job in jobs]
    _row(table, "all", f"{sum(t.adapter is not None for t in times)} + backbone", everyone)
    console.print()
    console.print(table)
    _show_steps(console, before, after)


def _row(
    table: Table, name: str, adapter: str, jobs: Sequence[JobTimes], *, style: str = "bold"
) -> None:
    summary = summarise(jobs)
    rate = summary.tokens_per_second
    table.add_row(
        name,
        adapter,
        str(summary.jobs),
        str(summary.tokens),
        "-" if rate is None else f"{rate:.0f}",
        _two(summary.first_p50, summary.first_p95),
        _two(summary.gap_p50, summary.gap_p95),
        style=style,
    )


def _two(p50: float | None, p95: float | None) -> str:
    if p50 is None or p95 is None:
        return "-"
    return f"{p50 * MS:.0f} / {p95 * MS:.0f} ms"


def _show_steps(console: Console, before: str, after: str) -> None:
    rows = _since("aril_step_rows", before, after)
    adapters = _since("aril_step_adapters", before, after)
    if not rows.steps:
        console.print("rows and adapters per step: not told (--metrics URL of a worker)")
        return
    console.print(
        f"\n[bold]{rows.steps:.0f}[/] steps of the model, each for [bold]{rows.mean or 0:.1f}[/]"
        f" jobs on average (up to {rows.most or 0:.0f}) with [bold]{adapters.mean or 0:.1f}[/]"
        f" distinct adapters (up to {adapters.most or 0:.0f})"
    )


def _since(name: str, before: str, after: str) -> StepCounts:
    return read_histogram(after, name).since(read_histogram(before, name))

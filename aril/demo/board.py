"""The demo on the screen: a live board of all jobs on a terminal, marked lines elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

from rich.live import Live
from rich.table import Table
from rich.text import Text

from aril.render import Weaver, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from aril.demo.tenants import DemoTenant

WAITING: Final = "·"
WRITING: Final = "▸"
FRAMES_PER_SECOND: Final = 8
QUESTION_SHARE: Final = 0.28
NARROWEST_ANSWER: Final = 20
MARGINS: Final = 8
# Rows around the jobs: the title of a column, and the lines above and below the board.
LINES_BESIDE_JOBS: Final = 4


@dataclass(slots=True)
class Shown:
    """One job as it is on the screen."""

    tenant: DemoTenant
    number: int
    question: str
    answer: str = ""
    state: str = WAITING

    @property
    def label(self) -> str:
        """The tenant and the number of its job."""
        return f"{self.tenant.name} {self.number}"


class Display(Protocol):
    """Where the streams are shown while they run."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *_: object) -> None:
        """Leave what was shown on the screen."""

    def text(self, job: Shown, text: str) -> None:
        """Add to an answer."""

    def reset(self, job: Shown) -> None:
        """Withdraw what was shown of an answer."""

    def end(self, job: Shown, state: str, note: str) -> None:
        """Show how a job ended."""


class LiveBoard:
    """Every job is a row; the end of its answer runs along as it is written."""

    def __init__(self, console: Console, jobs: Sequence[Shown]) -> None:
        self._console = console
        self._jobs = jobs
        self._live = Live(
            get_renderable=self._table, console=console, refresh_per_second=FRAMES_PER_SECOND
        )

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def text(self, job: Shown, text: str) -> None:
        """See `Display`."""
        job.answer += printable(text)
        job.state = WRITING

    def reset(self, job: Shown) -> None:
        """See `Display`."""
        job.answer = ""

    def end(self, job: Shown, state: str, note: str) -> None:
        """See `Display`."""
        job.state = state
        if state != "✓":
            job.answer = f"{job.answer} [{note}]"

    def _table(self) -> Table:
        tenant_width = max(len(job.tenant.name) for job in self._jobs)
        room = self._console.width - tenant_width - MARGINS
        question_width = int(room * QUESTION_SHARE)
        answer_width = max(NARROWEST_ANSWER, room - question_width)
        table = Table.grid(padding=(0, 1), pad_edge=False)
        for width in (tenant_width, question_width, 1, answer_width):
            table.add_column(width=width, no_wrap=True, overflow="ellipsis")
        for job in self._jobs:
            style = job.tenant.style
            answer = " ".join(job.answer.split())
            table.add_row(
                Text(job.tenant.name if job.number == 1 else "", style=f"bold {style}"),
                Text(job.question, style="dim"),
                Text(job.state, style=style),
                Text(_tail(answer, answer_width) if job.state == WRITING else answer, style=style),
            )
        return table


def _tail(line: str, width: int) -> str:
    return line if len(line) <= width else "…" + line[1 - width :]


class PlainLines:
    """Whole lines as they are written, each marked with the tenant and number of its job."""

    def __init__(self, jobs: Sequence[Shown], *, width: int) -> None:
        self._jobs = jobs
        self._weaver = Weaver({job.label: job.label for job in jobs}, width=width)

    def __enter__(self) -> Self:
        for job in self._jobs:
            self._weaver.note(job.label, f"? {job.question}")
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def text(self, job: Shown, text: str) -> None:
        """See `Display`."""
        job.answer += printable(text)
        self._weaver.add(job.label, text)

    def reset(self, job: Shown) -> None:
        """See `Display`."""
        job.answer = ""
        self._weaver.end(job.label, "[the answer begins anew]")

    def end(self, job: Shown, state: str, note: str) -> None:
        """See `Display`."""
        job.state = state
        self._weaver.end(job.label, f"[{note}]")


def display_for(console: Console, jobs: Sequence[Shown], *, plain: bool) -> Display:
    """Return the board where it fits on a terminal, else the lines."""
    fits = console.height >= len(jobs) + LINES_BESIDE_JOBS
    if console.is_terminal and not console.is_dumb_terminal and fits and not plain:
        return LiveBoard(console, jobs)
    return PlainLines(jobs, width=console.width)

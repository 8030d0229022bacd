"""How far `aril batch` is, on standard error: a bar where rich is installed, else lines."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final, Protocol

from aril.batches.tally import Pace

if TYPE_CHECKING:
    from aril.batches.tally import Tally
    from aril.batches.window import Window

LINE_SECONDS: Final = 10.0
BAR_SECONDS: Final = 0.5
MINUTE: Final = 60
HOUR: Final = 3_600


class Display(Protocol):
    """Shows a line of text, again and again."""

    seconds: float
    """How often."""

    def show(self, tally: Tally, text: str) -> None:
        """Show how far it is."""

    def end(self) -> None:
        """Leave the screen as it should stay."""


class Lines:
    """A line each time, where there is nothing to draw with."""

    seconds = LINE_SECONDS

    def show(self, tally: Tally, text: str) -> None:
        """Print it."""
        print(f"{tally.done:,} of {tally.total:,} lines{text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """There is nothing to leave."""


class Bar:
    """A bar, by rich. Raises ModuleNotFoundError where that is not installed."""

    seconds = BAR_SECONDS

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - an extra
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("lines{task.description}"))
        self._progress = Progress(
            *columns, console=Console(stderr=True), auto_refresh=False, transient=True
        )
        self._task = self._progress.add_task("")
        self._progress.start()

    def show(self, tally: Tally, text: str) -> None:
        """Draw it."""
        self._progress.update(
            self._task, completed=tally.done, total=tally.total, description=text, refresh=True
        )

    def end(self) -> None:
        """Take the bar away; what was done is told behind it."""
        self._progress.stop()


def display_for(*, quiet: bool) -> Display | None:
    """Return what fits; None if nobody looks."""
    if quiet or not sys.stderr.isatty():
        return None
    try:
        return Bar()
    except ModuleNotFoundError:
        return Lines()


async def watch(display: Display, tally: Tally, window: Window) -> None:
    """Show how far it is until cancelled."""
    pace = Pace()
    try:
        while True:
            pace.mark(time.monotonic(), tally.written)
            display.show(tally, told(tally, pace, window))
            await asyncio.sleep(display.seconds)
    finally:
        display.end()


def told(tally: Tally, pace: Pace, window: Window) -> str:
    """Return pace, time to go, and what is out of the ordinary."""
    parts = [f"{pace.rate:.1f}/s", f"{window.used:,} jobs run"]
    if (seconds := pace.seconds_for(tally.total - tally.done)) is not None:
        parts.append(f"{short(seconds)} to go")
    if tally.failed:
        parts.append(f"{tally.failed.total():,} failed")
    if tally.retries:
        parts.append(f"{tally.retries:,} asked again")
    return "".join(f", {part}" for part in parts)


def short(seconds: float) -> str:
    """Return a time as people say it: 40 s, 5 min, 2 h 10 min."""
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f} s"
    if seconds < 2 * HOUR:
        return f"{seconds / MINUTE:.0f} min"
    hours, rest = divmod(round(seconds / MINUTE), MINUTE)
    return f"{hours} h {rest} min"

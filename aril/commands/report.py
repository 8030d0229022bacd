"""Lines that say how something is: a mark, what it is about, and the finding."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["good", "warning", "bad"]

MARKS: Final[dict[Verdict, str]] = {"good": "✓", "warning": "!", "bad": "✗"}
COLOURS: Final[dict[Verdict, str]] = {"good": "\033[32m", "warning": "\033[33m", "bad": "\033[31m"}
PLAIN_MARKS: Final[dict[Verdict, str]] = {"good": "ok", "warning": "warning", "bad": "FAILED"}
SUBJECT_WIDTH: Final = 9


class Report:
    """Prints a line a finding and remembers whether one was bad."""

    def __init__(self) -> None:
        self.failed: bool = False
        self._marks = MARKS if _can_print(MARKS["good"]) else PLAIN_MARKS

    def line(self, verdict: Verdict, subject: str, text: str) -> None:
        """Print one finding."""
        self.failed = self.failed or verdict == "bad"
        mark = self._marks[verdict]
        if sys.stdout.isatty():
            mark = f"{COLOURS[verdict]}{mark}\033[0m"
        print(f"{mark} {subject:<{SUBJECT_WIDTH}} {text}", flush=True)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as text in columns, the last one as long as it is."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    widths[-1] = 0
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    )

"""Answers on a terminal or in a file: several streams woven into whole lines, and nothing harmful.

What a model writes is not to be trusted: control characters could move the cursor, retitle the
window or answer for the user, so they are shown as the replacement character.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

RESET: Final = "\033[0m"
DIM: Final = "\033[2m"
# Bright enough on dark and light grounds alike; neighbours differ for the colour-blind, too.
COLOURS: Final = tuple(f"\033[{code}m" for code in (36, 33, 35, 32, 34, 31))
NARROWEST: Final = 20
_KEPT: Final = frozenset("\n\t")
_UNSAFE: Final = dict.fromkeys(
    (
        code
        for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F))
        if chr(code) not in _KEPT
    ),
    "\N{REPLACEMENT CHARACTER}",
)


def printable(text: str) -> str:
    """Return `text` without what a terminal would obey."""
    return text.translate(_UNSAFE)


class Weaver:
    """Writes the texts of several streams as they come, each line whole and of one stream.

    A line is written when it is complete, as wide as the terminal, or its stream ends. `prefixes`
    names the streams; with `colours` (escape sequences) the whole line is in its stream's colour.
    """

    def __init__(
        self,
        prefixes: Mapping[str, str],
        *,
        width: int,
        colours: Mapping[str, str] | None = None,
        out: TextIO | None = None,
    ) -> None:
        self._prefixes = prefixes
        self._colours = colours or {}
        self._label_width = max(map(len, prefixes.values()), default=0)
        self._width = max(NARROWEST, width - self._label_width - len(" │ "))
        self._out = out or sys.stdout
        self._waiting: dict[str, str] = {}

    def add(self, stream: str, text: str) -> None:
        """Take the next piece of a stream."""
        waiting = self._waiting.get(stream, "") + printable(text).expandtabs(4)
        while (line_end := self._line_end(waiting)) is not None:
            self._write(stream, waiting[:line_end].rstrip())
            waiting = waiting[line_end:].removeprefix("\n").lstrip(" ")
        self._waiting[stream] = waiting

    def end(self, stream: str, note: str = "") -> None:
        """Write what is left of a stream, and a note behind it."""
        rest, note = self._waiting.pop(stream, "").rstrip(), printable(note)
        if rest and len(rest) + len(note) >= self._width:
            self._write(stream, rest)
            rest = ""
        if rest or note:
            self._write(stream, rest, note)

    def note(self, stream: str, text: str) -> None:
        """Write a line about a stream, not of it."""
        self._write(stream, "", printable(text))

    def _line_end(self, text: str) -> int | None:
        newline = text.find("\n", 0, self._width + 1)
        if newline >= 0:
            return newline
        if len(text) <= self._width:
            return None
        space = text.rfind(" ", 0, self._width + 1)
        return space if space > 0 else self._width

    def _write(self, stream: str, line: str, note: str = "") -> None:
        text = f"{self._prefixes[stream]:<{self._label_width}} │ {line}"
        if line and note:
            text += " "
        if colour := self._colours.get(stream):
            text, note = f"{colour}{text}{RESET}", note and f"{DIM}{note}{RESET}"
        print((text + note).rstrip(), file=self._out, flush=True)

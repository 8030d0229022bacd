"""Stop strings in text that comes in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class StopStrings:
    """Lets text through up to the first stop string, and nothing that may become part of one.

    The first is the one that is complete first; of those that end at the same character, the
    longest. What comes through does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Return the text that is safe now; nothing more once a stop string was found."""
        if self.found:
            return ""
        if not self._stops:
            return piece
        text = self._held + piece
        matches = [
            (start + len(stop), start) for stop in self._stops if (start := text.find(stop)) >= 0
        ]
        if matches:
            self.found = True
            self._held = ""
            return text[: min(matches)[1]]
        safe = min(_possible_start(text, stop) for stop in self._stops)
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """Return what was held back: no more text comes, so it is no stop string."""
        text, self._held = self._held, ""
        return text


def _possible_start(text: str, stop: str) -> int:
    """Index of the first suffix of `text` that begins `stop`; the length if there is none."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return start
        start = text.find(stop[0], start + 1)
    return len(text)

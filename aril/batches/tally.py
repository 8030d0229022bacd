"""How far a batch is: what is there, what was asked, what failed, how fast, how long still."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

WINDOW_SECONDS: Final = 60.0
MAX_MARKS: Final = 240


@dataclass(slots=True)
class Tally:
    """Counts of lines, but for `jobs` and `retries`, which are of what was sent."""

    total: int = 0
    held: int = 0
    """In the output before the run began."""
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By code."""
    running: int = 0
    tokens: int = 0
    jobs: int = 0
    retries: int = 0
    left: int = 0
    """Jobs that go on at the service, or, if they were cancelled, do not."""

    @property
    def written(self) -> int:
        """Lines of this run that are in the output."""
        return self.answered + self.failed.total()

    @property
    def done(self) -> int:
        """Lines that are in the output."""
        return self.held + self.written

    def told(self) -> str:
        """Return what was done, in one line."""
        parts = [f"{self.answered:,} answered"]
        if self.failed:
            codes = ", ".join(f"{code} {count:,}" for code, count in self.failed.most_common())
            parts.append(f"{self.failed.total():,} failed ({codes})")
        if self.held:
            parts.append(f"{self.held:,} were there")
        if missing := self.total - self.done:
            parts.append(f"{missing:,} not yet")
        return f"{self.total:,} lines: {', '.join(parts)}"


class Pace:
    """Lines a second over the last minute, and when the rest will be there at that pace."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque(maxlen=MAX_MARKS)

    def mark(self, now: float, written: int) -> None:
        """Note how many lines were written at `now`, in seconds."""
        self._marks.append((now, written))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_SECONDS:  # noqa: PLR2004
            self._marks.popleft()

    @property
    def rate(self) -> float:
        """Lines a second; 0 as long as nothing is known."""
        if not self._marks:
            return 0.0
        (since, before), (now, written) = self._marks[0], self._marks[-1]
        return (written - before) / (now - since) if now > since else 0.0

    def seconds_for(self, lines: int) -> float | None:
        """Return how long `lines` more will take; None while nobody can say."""
        return lines / self.rate if self.rate > 0 else None

"""What a check found: which rules are broken, where, and how much was looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Violation(NamedTuple):
    """A broken rule: its name, where it broke, and what was seen."""

    rule: str
    where: str
    text: str


@dataclass(slots=True)
class Report:
    """What a history holds, and every rule it breaks."""

    violations: list[Violation] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def rules(self) -> set[str]:
        """The names of the broken rules."""
        return {each.rule for each in self.violations}

    def add(self, rule: str, where: object, text: str) -> None:
        """Note a broken rule."""
        self.violations.append(Violation(rule, str(where), text))

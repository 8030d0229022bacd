"""All of the input, read once before the first line is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aril.batches.digests import Digests
from aril.batches.lines import BadLine, misplaced, question_of, read_lines

if TYPE_CHECKING:
    from typing import BinaryIO

    from aril.batches.lines import Manner

MAX_TOLD: Final = 20


@dataclass(slots=True)
class Survey:
    """What the lines are: how many, how many of them are answered, what is wrong with which."""

    total: int = 0
    held: int = 0
    wrong: int = 0
    told: list[BadLine] = field(default_factory=list)
    """The first of those that are wrong."""

    def note(self, fault: BadLine) -> None:
        """Note that a line is wrong."""
        self.wrong += 1
        if len(self.told) < MAX_TOLD:
            self.told.append(fault)


def survey(
    file: BinaryIO,
    manner: Manner,
    held: Digests | None = None,
    *,
    requests: bool = False,
    endpoint: str | None = None,
) -> Survey:
    """Read the lines; with `requests` judge also what each asks for. `held` are answered ones.

    With an `endpoint` every line must be OpenAI's, for that endpoint.
    """
    found = Survey()
    held = Digests() if held is None else held
    for line in read_lines(file, manner):
        if isinstance(line, BadLine):
            found.note(line)
            continue
        if endpoint is not None and (fault := misplaced(line, endpoint)) is not None:
            found.note(fault)
            continue
        found.total += 1
        found.held += line.short in held
        if requests and (refusal := question_of(line, manner).refusal) is not None:
            found.note(BadLine(line.number, refusal.message, param=refusal.param))
    return found

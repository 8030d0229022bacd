"""The answers of a batch → its two files: what was answered, and what was not."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aril.batches.digests import Digests
from aril.batches.lines import Line, read_lines, short_of
from aril.batches.records import digest_in, unasked_record
from aril.gateway.stored.records import Usage

if TYPE_CHECKING:
    from pathlib import Path

    from aril.batches.lines import Manner
    from aril.gateway.stored.disk import Part

UNASKED: Final = {
    "cancelled": ("batch_cancelled", "the batch was cancelled before this was answered"),
    "expired": ("batch_expired", "the completion window ended before this was answered"),
}
"""Code and message of a line that has no answer, by what the batch has come to."""


@dataclass(slots=True)
class Results:
    """What was written."""

    completed: int = 0
    failed: int = 0
    usage: Usage = field(default_factory=Usage)


def write_results(
    answers: Path, source: Path, manner: Manner, *, name: str, ending: str, good: Part, bad: Part
) -> Results:
    """Sort the answers of a batch; lines without one are told of where it did not complete.

    Each line has one record, in `good` or in `bad`, whatever the answers hold twice.
    """
    held, results = Digests(), Results()
    if answers.exists():
        with answers.open("rb") as file:
            for record in file:
                found = digest_in(record)
                if found is None or not held.add(short_of(found[0])):
                    continue
                (bad if found[1] else good).write(record)
                results.failed += found[1]
                results.completed += not found[1]
                if not found[1]:
                    _count(record, results.usage)
    if ending in UNASKED:
        code, message = UNASKED[ending]
        with source.open("rb") as file:
            for line in read_lines(file, manner):
                if isinstance(line, Line) and line.short not in held:
                    bad.write(unasked_record(line, name, code=code, message=message))
                    results.failed += 1
    return results


def _count(record: bytes, usage: Usage) -> None:
    told = json.loads(record)["response"]["body"].get("usage") or {}
    usage.input_tokens += told.get("prompt_tokens", 0)
    usage.output_tokens += told.get("completion_tokens", 0)

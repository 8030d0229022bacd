"""Answers of a batch are sorted into two files, each line once, whatever the answers hold."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from aril.batches.lines import Line, Manner, read_lines
from aril.batches.records import error_record
from aril.gateway.stored.disk import Part
from aril.gateway.stored.results import write_results
from aril.openai.errors import Refused
from tests.support.batch_site import chat_line
from tests.support.gateway_files import jsonl

if TYPE_CHECKING:
    from pathlib import Path

MANNER: Final = Manner({}, tenant="acme")


def lines_of(source: Path) -> list[Line]:
    """Read the input."""
    with source.open("rb") as file:
        return [each for each in read_lines(file, MANNER) if isinstance(each, Line)]


def sort(folder: Path, ending: str) -> tuple[Any, list[str], list[str]]:
    """Sort; return the counts, and the ids in either file."""
    found = []
    with Part(folder / "good") as good, Part(folder / "bad") as bad:
        results = write_results(
            folder / "answers",
            folder / "input",
            MANNER,
            name="b",
            ending=ending,
            good=good,
            bad=bad,
        )
        for name, part in (("good", good), ("bad", bad)):
            part.keep()
            found.append([each["custom_id"] for each in read_json(folder / name)])
    return results, found[0], found[1]


def read_json(path: Path) -> list[Any]:
    """Read lines of JSON."""
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("ending", ["completed", "cancelled", "expired"])
def test_each_line_once(tmp_path: Path, ending: str) -> None:
    """A line that two writers have answered, one that is torn, one without an answer."""
    (tmp_path / "input").write_bytes(jsonl(*(chat_line(f"k{at}", "p") for at in range(4))))
    first, second, third, _ = lines_of(tmp_path / "input")
    good = (
        b'{"id": "b.%b", "custom_id": "k0", "response": {"status_code": 200, "request_id": "j",'
        b' "body": {"usage": {"prompt_tokens": 5, "completion_tokens": 7}}}, "error": null}\n'
        % first.digest.encode()
    )
    bad, torn = (error_record(line, "b", Refused("no"), "j") for line in (second, third))
    (tmp_path / "answers").write_bytes(good + bad + good + bad + torn[:60])
    results, answered, failed = sort(tmp_path, ending)
    unasked = [] if ending == "completed" else ["k2", "k3"]
    assert (answered, failed) == (["k0"], ["k1", *unasked])
    assert (results.completed, results.failed) == (1, 1 + len(unasked))
    assert (results.usage.input_tokens, results.usage.output_tokens) == (5, 7)


def test_nothing_was_asked(tmp_path: Path) -> None:
    """A batch that ends before it begins has all of its lines among the errors."""
    (tmp_path / "input").write_bytes(jsonl(chat_line("k0", "p"), chat_line("k1", "p")))
    results, answered, failed = sort(tmp_path, "expired")
    assert (answered, failed) == ([], ["k0", "k1"])
    assert results.failed == 2

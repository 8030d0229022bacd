"""How `aril send` asks for a form of its answers, and what a line leaves to the flags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aril.arguments import Parser, UsageError
from aril.commands import send
from aril.commands.prompts import read_prompts, sampling_of
from aril.schemas import Sampling
from aril.schemas.constraint import Constraint

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = '{"type": "array",\n "items": {"type": "boolean"}}'
GRAMMAR = 'start: "yes"\n | "Nö"\n'


def asked(*flags: str) -> Any:
    """Return the sampling of the one job that the flags make."""
    parser = Parser(prog="aril send")
    send.configure(parser)
    arguments = parser.parse_args(flags)
    (job,) = read_prompts(arguments, sampling_of(arguments, "send"))
    return job["sampling"]


@pytest.fixture
def line(tmp_path: Path) -> Path:
    """Return a place for a file of one line."""
    return tmp_path / "jobs.jsonl"


@pytest.mark.parametrize(
    ("flags", "constraint"),
    [
        (["--regex", r"[A-Z]\d{2,}|\S"], Constraint("regex", r"[A-Z]\d{2,}|\S", "regex")),
        (["--choice", "Yes", "--choice", "no, never"], '["Yes", "no, never"]'),
        (["--response-format", "json_object"], '{"type":"object"}'),
        (["--response-format", "text"], None),
        (
            [
                "--response-format",
                json.dumps({"type": "json_schema", "json_schema": {"schema": {"const": "A"}}}),
            ],
            '{"const":"A"}',
        ),
        (["--json-schema", "FILE"], SCHEMA),
        (["--grammar", "FILE"], GRAMMAR),
    ],
)
def test_flags_ask_for_a_form(
    flags: list[str], constraint: Constraint | str | None, tmp_path: Path
) -> None:
    """Each flag becomes its constraint, letter by letter, beside what else is sampled."""
    file = tmp_path / "form"
    file.write_text(GRAMMAR if "--grammar" in flags else SCHEMA)
    given = [str(file) if flag == "FILE" else flag for flag in flags]
    sampling = asked("--top-k", "7", *given, "hi")
    assert sampling.top_k == 7
    found = sampling.constraint
    assert (found if isinstance(constraint, Constraint) else found and found.text) == constraint


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--regex", "a", "--choice", "b"], "--choice: not allowed with argument --regex"),
        (["--response-format", "json"], "--response-format.type"),
        (["--response-format", "{"], "--response-format: not JSON"),
        (["--response-format", '{"type": "text", "schema": {}}'], "--response-format.schema"),
        (["--json-schema", "/nowhere"], "--json-schema /nowhere: No such file"),
        (["--grammar", "/nowhere"], "--grammar /nowhere: No such file"),
        (["--regex", ""], "--regex: "),
    ],
)
def test_a_form_that_there_is_not_is_named(flags: list[str], told: str) -> None:
    """The flag is told, and nothing is sent."""
    with pytest.raises(UsageError, match=told):
        asked(*flags, "hi")


def test_a_lines_sampling_goes_before_the_flags_field_by_field(line: Path) -> None:
    """What it does not say the flags do; its form takes the place of theirs."""
    line.write_text('{"prompt": "hi", "sampling": {"max_tokens": 9, "regex": "A"}}')
    flags = ["--temperature", "0", "--max-tokens", "3", "--stop", "X", "--choice", "b"]
    assert asked(*flags, "--jsonl", str(line)) == Sampling(
        temperature=0.0, max_tokens=9, stop=("X",), regex="A"
    )
    line.write_text('{"prompt": "hi", "sampling": {"stop": []}}')
    form = ["--response-format", '{"type": "json_schema", "json_schema": {"schema": {}}}']
    sampling = asked(*form, "--stop", "X", "--jsonl", str(line))
    assert (sampling.stop, sampling.constraint.text) == ((), "{}")


@pytest.mark.parametrize(
    ("sampling", "told"),
    [
        ('{"regexp": "a"}', r"line 1: sampling\.regexp: "),
        ('"greedy"', "line 1: sampling: not an object"),
        ('{"regex": "a", "choice": ["a"]}', "line 1: sampling: at most one of"),
    ],
)
def test_a_bad_sampling_is_told_with_its_line(line: Path, sampling: str, told: str) -> None:
    """File, line and field."""
    line.write_text(f'{{"prompt": "hi", "sampling": {sampling}}}')
    with pytest.raises(UsageError, match=told):
        asked("--jsonl", str(line))

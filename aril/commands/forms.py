"""The form that an answer of `aril send` is held to, as flags: at most one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aril.arguments import UsageError

if TYPE_CHECKING:
    import argparse


def add_forms(parser: argparse.ArgumentParser) -> None:
    """Add the flags."""
    title = "form of the answer (one of them)"
    group = parser.add_argument_group(title).add_mutually_exclusive_group()
    group.add_argument(
        "--response-format",
        metavar="FORM",
        help="json_object, text, or a map in JSON as the OpenAI interface has it",
    )
    group.add_argument("--json-schema", metavar="FILE", help="JSON that this JSON Schema allows")
    group.add_argument("--regex", metavar="TEXT", help="a text that matches, from end to end")
    group.add_argument(
        "--choice", action="append", metavar="TEXT", help="one of these; may be repeated"
    )
    group.add_argument(
        "--grammar", metavar="FILE", help="a text of this Lark grammar, whose first rule is start"
    )


def form_of(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return what the flags ask for, as fields of `Sampling`. Raises `UsageError`."""
    if arguments.response_format is not None:
        return {"response_format": _response_format(arguments.response_format, command)}
    if arguments.json_schema is not None:
        # As text: the limits of a map in a record do not hold for it.
        wrapped = {"schema": _read(f"{command}: --json-schema", arguments.json_schema)}
        return {"response_format": {"type": "json_schema", "json_schema": wrapped}}
    if arguments.grammar is not None:
        return {"grammar": _read(f"{command}: --grammar", arguments.grammar)}
    given = {"regex": arguments.regex, "choice": arguments.choice}
    return {name: value for name, value in given.items() if value is not None}


def _response_format(text: str, command: str) -> Any:
    if not text.lstrip().startswith("{"):
        return {"type": text}
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{command}: --response-format: not JSON: {error}") from None


def _read(flag: str, source: str) -> str:
    try:
        return Path(source).read_text("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{flag} {source}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{flag} {source}: not UTF-8") from None

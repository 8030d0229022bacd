"""The form of an answer: `response_format`, and the names that vLLM and others have for it."""

from __future__ import annotations

import json
from typing import Any, Final

from aril.openai.body import Body
from aril.openai.errors import Refused

GUIDED: Final = ("json", "regex", "choice", "grammar")
OF_STRUCTURED: Final = frozenset({"disable_fallback"})


def take_form(body: Body, names: dict[str, str]) -> dict[str, Any]:
    """Return the form as fields of the contract's sampling, none if any text will do.

    `names` is told what the body calls them. Raises `Refused`, also where there are two.
    """
    found = [*_response_format(body), *_guided(body), *_structured(body), *_plain(body)]
    if not found:
        return {}
    if len(found) > 1:
        (_, _, first), (_, _, second), *_ = found
        raise Refused(f"{second}: an answer has one form, and {first} is one", param=second)
    field, value, name = found[0]
    names[field] = name
    return {field: value}


Found = list[tuple[str, Any, str]]
"""The contract's field, its value, and what the body calls it."""


def _response_format(body: Body) -> Found:
    given = body.take_as(dict, "response_format")
    if given is None or given == {"type": "text"}:
        return []
    wrapped = given.get("json_schema")
    if isinstance(wrapped, dict) and isinstance(wrapped.get("schema"), dict):
        wrapped = wrapped | {"schema": _text(wrapped["schema"], "response_format")}
        given = given | {"json_schema": wrapped}
    return [("response_format", given, "response_format")]


def _guided(body: Body) -> Found:
    return [
        _form(kind, value, f"guided_{kind}")
        for kind in GUIDED
        if (value := body.take(f"guided_{kind}")) is not None
    ]


def _structured(outer: Body) -> Found:
    given = outer.take_as(dict, "structured_outputs")
    if given is None:
        return []
    body = Body(given, "structured_outputs")
    found = [
        _form(kind, value, body.name(kind))
        for kind in GUIDED
        if (value := body.take(kind)) is not None
    ]
    if body.take_as(bool, "json_object"):
        found.append(("response_format", {"type": "json_object"}, body.name("json_object")))
    for name in ("disable_any_whitespace", "disable_additional_properties"):
        body.take_only(name, False)  # noqa: FBT003 - what the field says
    for name in ("whitespace_pattern", "structural_tag"):
        body.take_only(name)
    body.end(OF_STRUCTURED)
    return found


def _plain(body: Body) -> Found:
    names = ("regex", "choice", "grammar")
    return [(name, value, name) for name in names if (value := body.take(name)) is not None]


def _form(kind: str, value: Any, name: str) -> tuple[str, Any, str]:
    if kind != "json":
        return kind, value, name
    schema = _text(value, name) if isinstance(value, dict) else value
    wrapped = {"type": "json_schema", "json_schema": {"schema": schema}}
    return "response_format", wrapped, name


def _text(schema: dict[str, Any], name: str) -> str:
    """Return a schema as text, for which the bounds of a record's shape do not hold."""
    try:
        return json.dumps(schema, separators=(",", ":"), allow_nan=False)
    except (ValueError, RecursionError):  # what was read is not always what can be written
        raise Refused(
            f"{name}: nested too deep, or holds a number that JSON has not", param=name
        ) from None

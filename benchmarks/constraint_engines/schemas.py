"""Schemas as tenants have them, each with an answer to walk along, and some of a hostile tenant."""

from __future__ import annotations

import json
from typing import Any, Final, NamedTuple


class Case(NamedTuple):
    """A schema, and an answer that it lets through, without blanks as all engines can."""

    schema: dict[str, Any]
    answer: str


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))


def _nested(depth: int) -> Case:
    schema: dict[str, Any] = {"type": "integer"}
    value: Any = 7
    for level in range(depth):
        schema, value = _closed({f"level{level}": schema}), {f"level{level}": value}
    return Case(schema, _compact(value))


def _wide(count: int) -> Case:
    kinds = ({"type": "string"}, {"type": "integer"}, {"type": "boolean"}, {"enum": ["a", "b"]})
    values = ("some words", 42, True, "b")
    names = [f"field_{number}" for number in range(count)]
    return Case(
        _closed({name: kinds[at % len(kinds)] for at, name in enumerate(names)}),
        _compact({name: values[at % len(values)] for at, name in enumerate(names)}),
    )


TYPICAL: Final[dict[str, Case]] = {
    "small": Case(
        _closed({"name": {"type": "string"}, "age": {"type": "integer"}}),
        '{"name":"Ada Lovelace","age":36}',
    ),
    "nested 8 deep": _nested(8),
    "100 fields": _wide(100),
    "pattern": Case(
        _closed({"plate": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,6}$"}}),
        '{"plate":"AB-12345"}',
    ),
    "enum of 500": Case(
        _closed({"code": {"enum": [f"code-{number}" for number in range(500)]}}),
        '{"code":"code-321"}',
    ),
    "3 to 50 items": Case(
        {"type": "array", "items": {"type": "string"}, "minItems": 3, "maxItems": 50},
        _compact(["one", "two", "three", "four"]),
    ),
    "recursive $ref": Case(
        {
            "$defs": {
                "node": _closed(
                    {
                        "name": {"type": "string"},
                        "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                    }
                )
            },
            "$ref": "#/$defs/node",
        },
        '{"name":"a","children":[{"name":"b","children":[]}]}',
    ),
}

_COUNTED: Final = "((x{1,100}){1,100}){1,100}"
HOSTILE: Final[dict[str, dict[str, Any]]] = {
    "counted counts": {"type": "string", "pattern": f"^{_COUNTED}$"},
    "2 ** 20 states": {"type": "string", "pattern": "^(a|b)*a(a|b){20}$"},
    "2,000 optional fields": {
        "type": "object",
        "properties": {f"p{number}": {"type": "string"} for number in range(2_000)},
        "additionalProperties": False,
    },
    "10 ** 6 characters": {"type": "string", "maxLength": 1_000_000},
    "10 ** 5 items at least": {"type": "array", "items": {"type": "string"}, "minItems": 100_000},
    "6 ** 6 branches": {
        "allOf": [
            {"anyOf": [{"properties": {f"x{at}{to}": {"type": "string"}}} for to in range(6)]}
            for at in range(6)
        ]
    },
    "chain of 1,000 $refs": {
        "$defs": {
            **{
                f"d{at}": {"type": "array", "items": {"$ref": f"#/$defs/d{at + 1}"}}
                for at in range(1_000)
            },
            "d1000": {"type": "string"},
        },
        "$ref": "#/$defs/d0",
    },
    "chain of 5,000 $refs": {
        "$defs": {
            **{
                f"d{at}": {"type": "array", "items": {"$ref": f"#/$defs/d{at + 1}"}}
                for at in range(5_000)
            },
            "d5000": {"type": "string"},
        },
        "$ref": "#/$defs/d0",
    },
    "$ref to elsewhere": {"$ref": "https://example.com/schema.json"},
    "not": {"not": {"type": "string"}},
}

"""Constraints that tests ask for, and whether a text is such an answer by other libraries."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import jsonschema

from aril.schemas import Sampling

PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "bb"]}, "minItems": 1, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "id": {"type": "string", "pattern": "^[a-c]{1,3}$"},
                "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]},
            },
            "required": ["id", "next"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@dataclass(frozen=True)
class Form:
    """One constraint, as fields of `sampling`."""

    name: str
    fields: dict[str, Any] = field(repr=False)
    schema: dict[str, Any] | None = field(default=None, repr=False)
    regex: str | None = None
    choice: tuple[str, ...] = ()

    def sampling(self, **other: Any) -> Sampling:
        """Return sampling with it."""
        return Sampling(**self.fields, **other)

    def fault(self, text: str) -> str | None:
        """Return why a whole answer is none of this form; None for one that is."""
        if self.choice:
            return None if text in self.choice else "none of the choice"
        if self.regex is not None:
            return None if re.fullmatch(self.regex, text) else "no full match"
        try:
            jsonschema.validate(json.loads(text), self.schema or {})
        except ValueError:
            return "no JSON"
        except jsonschema.ValidationError as error:
            return f"breaks the schema at {error.json_path}"
        return None


def of_schema(name: str, schema: dict[str, Any], *, text: bool = False) -> Form:
    """Make the form of a JSON Schema."""
    told = json.dumps(schema, separators=(",", ":")) if text else schema
    form = {"type": "json_schema", "json_schema": {"name": name, "schema": told}}
    return Form(name, {"response_format": form}, schema)


_NUMBERS = "[1-9][0-9]{0,3}"
_CHOICE = ("yes", "yes, but", "no", 'say "no"', "Grüße 🙂")
FORMS = (
    of_schema("person", PERSON),
    of_schema("tree", TREE, text=True),
    Form("object", {"response_format": {"type": "json_object"}}, {"type": "object"}),
    Form("regex", {"regex": f"({_NUMBERS}-)+end"}, regex=f"({_NUMBERS}-)+end"),
    Form("choice", {"choice": list(_CHOICE)}, choice=_CHOICE),
    Form(
        "grammar",
        {"grammar": f'start: "sum: " N ("+" N)* "."\nN: /{_NUMBERS}/'},
        regex=rf"sum: {_NUMBERS}(\+{_NUMBERS})*\.",
    ),
)

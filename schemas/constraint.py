"""What an answer has to look like: a JSON Schema, a regular expression, a choice, a grammar."""

import json
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from aril.schemas import limits
from aril.schemas.conversation import sayable_in_json
from aril.schemas.strictness import CONFIG


class Constraint(NamedTuple):
    """One constraint in one form; `text` is of the kind: a schema in JSON, a regex, a Lark grammar.

    `field` is what the job calls it, for messages.
    """

    kind: Literal["json_schema", "regex", "choice", "grammar"]
    text: str
    field: str


def _map_or_text(schema: Any) -> Any:
    if not isinstance(schema, dict | str):
        raise PydanticCustomError("schema_type", "must be a map, or its JSON as text")
    if isinstance(schema, str) and len(schema) > limits.MAX_SCHEMA_BYTES:
        raise PydanticCustomError(
            "messages_too_long",
            "at most {max_length} characters together, not {actual_length}",
            {"max_length": limits.MAX_SCHEMA_BYTES, "actual_length": len(schema)},
        )
    return sayable_in_json(schema)


# What the engine makes of it is judged where it is compiled.
JsonSchema = Annotated[
    Any,
    AfterValidator(_map_or_text),
    WithJsonSchema({"type": ["object", "string"], "maxLength": limits.MAX_SCHEMA_BYTES}),
]


class JsonSchemaFormat(BaseModel):
    """A JSON Schema as the OpenAI interface wraps it."""

    model_config: ClassVar[ConfigDict] = CONFIG | {"serialize_by_alias": True}

    name: Annotated[str | None, Field(max_length=limits.MAX_METADATA_KEY_CHARS)] = None
    description: Annotated[str | None, Field(max_length=limits.MAX_METADATA_VALUE_CHARS)] = None
    schema_: Annotated[
        JsonSchema,
        Field(alias="schema", repr=False, description="a map, or its JSON as text"),
    ]
    strict: Annotated[
        bool | None, Field(description="changes nothing: a schema is always kept to")
    ] = None


class ResponseFormat(BaseModel):
    """The form of an answer, in the words of the OpenAI interface."""

    model_config = CONFIG

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _schema_goes_with_its_type(self) -> Self:
        if (self.json_schema is not None) != (self.type == "json_schema"):
            raise PydanticCustomError(
                "schema_and_type", "json_schema goes with type json_schema, and with no other"
            )
        return self

    @property
    def asks(self) -> bool:
        """Whether it asks for anything."""
        return self.type != "text"

    @property
    def constraint(self) -> Constraint | None:
        """What it asks for; None where any text will do."""
        if not self.asks:
            return None
        schema = {"type": "object"} if self.json_schema is None else self.json_schema.schema_
        if not isinstance(schema, str):
            schema = json.dumps(schema, separators=(",", ":"))
        return Constraint("json_schema", schema, "response_format")


Regex = Annotated[str, Field(min_length=1, max_length=limits.MAX_REGEX_CHARS)]
Grammar = Annotated[str, Field(min_length=1, max_length=limits.MAX_GRAMMAR_CHARS)]
Choice = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=limits.MAX_CHOICE_CHARS)], ...],
    Field(strict=False, fail_fast=True, min_length=1, max_length=limits.MAX_CHOICES),
]

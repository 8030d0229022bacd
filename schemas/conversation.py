"""Messages, and what goes with them to the backbone's chat template."""

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from aril.schemas import limits
from aril.schemas.strictness import CONFIG


class TextPart(BaseModel):
    """One piece of a message's text."""

    model_config = CONFIG

    type: Literal["text"]
    text: Annotated[str, Field(max_length=limits.MAX_PROMPT_CHARS, repr=False)]


Text = Annotated[str, Field(max_length=limits.MAX_PROMPT_CHARS)]
TextParts = Annotated[
    tuple[TextPart, ...], Field(strict=False, fail_fast=True, max_length=limits.MAX_CONTENT_PARTS)
]


def _leaves(value: Any) -> Iterator[Any]:
    """Return keys and values within maps and arrays; depth and size are the record's."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend((*each, *each.values()))
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        else:
            yield each


def _within(limit: int, chars: int) -> None:
    if chars > limit:
        raise PydanticCustomError(
            "messages_too_long",
            "at most {max_length} characters together, not {actual_length}",
            {"max_length": limit, "actual_length": chars},
        )


def sayable_in_json(value: Any) -> Any:
    """Refuse what not both forms of a record have: bytes, no numbers, integers past 64 bits."""
    for each in _leaves(value):
        if isinstance(each, bytes) or (isinstance(each, float) and not math.isfinite(each)):
            raise PydanticCustomError("no_json", "holds a value that JSON has no word for")
        if isinstance(each, int) and not -(2**63) <= each < 2**64:
            raise PydanticCustomError("no_json", "holds an integer of more than 64 bits")
    return value


def _short_variables(variables: dict[str, Any]) -> dict[str, Any]:
    """Bound their text: a template may write it once a message."""
    chars = sum(len(each) for each in _leaves(variables) if isinstance(each, str))
    _within(limits.MAX_TEMPLATE_VARIABLE_CHARS, chars)
    return variables


# What a chat template makes of these is its own affair.
Tools = Annotated[
    tuple[dict[str, Any], ...],
    Field(strict=False, fail_fast=True, max_length=limits.MAX_TOOLS),
    AfterValidator(sayable_in_json),
]


def _kind_of_content(content: object) -> str:
    return "content_parts" if isinstance(content, list | tuple) else "content_text"


class Message(BaseModel):
    """One turn of a conversation, rendered by the backbone's chat template."""

    model_config = CONFIG

    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[
        Annotated[Text | None, Tag("content_text")] | Annotated[TextParts, Tag("content_parts")],
        Discriminator(_kind_of_content),
        Field(repr=False, description="only an assistant's turn may be without"),
    ] = None
    name: Annotated[str | None, Field(max_length=limits.MAX_METADATA_KEY_CHARS)] = None
    tool_calls: Annotated[
        Tools | None, Field(repr=False, description="what an assistant's turn called")
    ] = None
    tool_call_id: Annotated[str | None, Field(max_length=limits.MAX_METADATA_VALUE_CHARS)] = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.content is None and self.role != "assistant":
            raise PydanticCustomError("no_content", "content: is required in a turn of this role")
        return self

    @property
    def text(self) -> str | None:
        """The content as one text; nil where an assistant's turn has calls only."""
        if not isinstance(self.content, tuple):
            return self.content
        return "\n".join(part.text for part in self.content)


def _together_not_too_long(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    _within(limits.MAX_PROMPT_CHARS, sum(len(message.text or "") for message in messages))
    return messages


Messages = Annotated[
    tuple[Message, ...],
    Field(strict=False, fail_fast=True, min_length=1, max_length=limits.MAX_MESSAGES),
    AfterValidator(_together_not_too_long),
]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
TemplateVariables = Annotated[
    dict[VariableName, Any],
    Field(max_length=limits.MAX_TEMPLATE_VARIABLES),
    AfterValidator(sayable_in_json),
    AfterValidator(_short_variables),
]

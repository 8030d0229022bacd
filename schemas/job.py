"""What a tenant asks for: a job, or the cancellation of one.

The models are strict: a number in a string is refused, not converted. Their error text never holds
the input and their repr never the prompt, since either would carry it into logs. Unknown fields
are ignored, unless the job says that it is `strict`.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from schemas import limits, names

CONFIG = ConfigDict(
    strict=True,
    frozen=True,
    extra="ignore",
    allow_inf_nan=False,
    hide_input_in_errors=True,
)


def _not_shared(name: str) -> str:
    if name.partition("@")[0] == names.SHARED:
        raise PydanticCustomError("reserved_name", "the name 'shared' is reserved")
    return name


JobId = Annotated[str, Field(pattern=names.JOB_ID_PATTERN)]
Tenant = Annotated[
    str,
    Field(pattern=names.NAME_PATTERN, json_schema_extra={"not": {"const": names.SHARED}}),
    AfterValidator(_not_shared),
]
Adapter = Annotated[
    str,
    Field(
        pattern=names.ADAPTER_PATTERN,
        json_schema_extra={"not": {"pattern": f"^{names.SHARED}(@|$)"}},
    ),
    AfterValidator(_not_shared),
]
TokenId = Annotated[int, Field(ge=0, le=limits.MAX_TOKEN_ID)]
StopString = Annotated[str, Field(min_length=1, max_length=limits.MAX_STOP_CHARS)]
MetadataKey = Annotated[str, Field(max_length=limits.MAX_METADATA_KEY_CHARS)]
MetadataValue = Annotated[str, Field(max_length=limits.MAX_METADATA_VALUE_CHARS)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue], Field(max_length=limits.MAX_METADATA_ENTRIES)
]
# `strict=False` on a tuple lets it be given as a list; its elements stay strict.
StopStrings = Annotated[
    tuple[StopString, ...], Field(strict=False, fail_fast=True, max_length=limits.MAX_STOP_STRINGS)
]
StopTokenIds = Annotated[
    tuple[TokenId, ...], Field(strict=False, fail_fast=True, max_length=limits.MAX_STOP_TOKEN_IDS)
]
PromptIds = Annotated[
    tuple[TokenId, ...],
    Field(strict=False, fail_fast=True, min_length=1, max_length=limits.MAX_PROMPT_TOKENS),
]
Penalty = Annotated[float, Field(ge=-limits.MAX_ABSOLUTE_PENALTY, le=limits.MAX_ABSOLUTE_PENALTY)]


class TextPart(BaseModel):
    """One piece of a message's text."""

    model_config = CONFIG

    type: Literal["text"]
    text: Annotated[str, Field(max_length=limits.MAX_PROMPT_CHARS, repr=False)]


Text = Annotated[str, Field(max_length=limits.MAX_PROMPT_CHARS)]
TextParts = Annotated[
    tuple[TextPart, ...], Field(strict=False, fail_fast=True, max_length=limits.MAX_CONTENT_PARTS)
]


def _sayable_in_json(value: Any) -> Any:
    """Refuse bytes, and numbers that are none; depth and size are the record's."""
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            waiting.extend(each.values())
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        elif isinstance(each, bytes) or (isinstance(each, float) and not math.isfinite(each)):
            raise PydanticCustomError("no_json", "holds a value that JSON has no word for")
    return value


def _short_variables(variables: dict[str, Any]) -> dict[str, Any]:
    """Bound their text: a template may write it once a message."""
    chars, waiting = 0, [variables]
    while waiting:
        each: Any = waiting.pop()
        if isinstance(each, dict):
            waiting.extend((*each, *each.values()))
        elif isinstance(each, list | tuple):
            waiting.extend(each)
        elif isinstance(each, str):
            chars += len(each)
    if chars > limits.MAX_TEMPLATE_VARIABLE_CHARS:
        raise PydanticCustomError(
            "messages_too_long",
            "at most {max_length} characters together, not {actual_length}",
            {"max_length": limits.MAX_TEMPLATE_VARIABLE_CHARS, "actual_length": chars},
        )
    return variables


# What a chat template makes of these is its own affair.
Tools = Annotated[
    tuple[dict[str, Any], ...],
    Field(strict=False, fail_fast=True, max_length=limits.MAX_TOOLS),
    AfterValidator(_sayable_in_json),
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
    chars = sum(len(message.text or "") for message in messages)
    if chars > limits.MAX_PROMPT_CHARS:
        raise PydanticCustomError(
            "messages_too_long",
            "at most {max_length} characters together, not {actual_length}",
            {"max_length": limits.MAX_PROMPT_CHARS, "actual_length": chars},
        )
    return messages


Messages = Annotated[
    tuple[Message, ...],
    Field(strict=False, fail_fast=True, min_length=1, max_length=limits.MAX_MESSAGES),
    AfterValidator(_together_not_too_long),
]
VariableName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")]
LogitBias = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")],
        Annotated[
            float, Field(ge=-limits.MAX_ABSOLUTE_LOGIT_BIAS, le=limits.MAX_ABSOLUTE_LOGIT_BIAS)
        ],
    ],
    Field(max_length=limits.MAX_LOGIT_BIASES),
]


class Sampling(BaseModel):
    """How tokens are chosen; names, ranges and defaults as in the OpenAI interface and vLLM."""

    model_config = CONFIG

    max_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=limits.MAX_MAX_TOKENS,
            description="nil: to the end of the context, or the most that the service allows",
        ),
    ] = None
    min_tokens: Annotated[
        int,
        Field(ge=0, le=limits.MAX_MAX_TOKENS, description="before them nothing ends the answer"),
    ] = 0
    temperature: Annotated[
        float, Field(ge=0, le=limits.MAX_TEMPERATURE, description="0 is greedy")
    ] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=limits.MAX_TOP_K, description="0 is off")] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[
        float, Field(ge=limits.MIN_REPETITION_PENALTY, le=limits.MAX_REPETITION_PENALTY)
    ] = 1.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    seed: Annotated[
        int | None,
        Field(ge=0, le=limits.MAX_SEED, description="nil: one is drawn and told in the terminal"),
    ] = None
    stop: StopStrings = ()
    stop_token_ids: StopTokenIds = ()
    ignore_eos: bool = False
    logit_bias: Annotated[
        LogitBias, Field(description="token id in decimal: what is added to its logit")
    ] = {}
    n: Annotated[int, Field(ge=1, le=1, description="one answer a job; send it again")] = 1
    best_of: Annotated[int, Field(ge=1, le=1, description="as n")] = 1
    logprobs: Annotated[
        int | None,
        Field(
            ge=0,
            le=limits.MAX_LOGPROBS,
            description="nil: none; n: the chosen token's and the n most likely ones'",
        ),
    ] = None

    prompt_logprobs: Annotated[None, Field(description="not served")] = None
    response_format: Annotated[None, Field(description="not served")] = None

    @model_validator(mode="after")
    def _can_be_long_enough(self) -> Self:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise PydanticCustomError("min_over_max", "min_tokens: more than max_tokens")
        return self

    @property
    def longest(self) -> int:
        """The most tokens that the answer may have by this alone."""
        return limits.MAX_MAX_TOKENS if self.max_tokens is None else self.max_tokens


class Job(BaseModel):
    """One prompt to complete."""

    model_config = CONFIG

    id: JobId
    tenant: Tenant
    adapter: Annotated[Adapter | None, Field(description="nil is the bare backbone")] = None
    prompt: Annotated[
        str | None, Field(min_length=1, max_length=limits.MAX_PROMPT_CHARS, repr=False)
    ] = None
    messages: Annotated[Messages | None, Field(repr=False)] = None
    tools: Annotated[Tools | None, Field(description="for the chat template", repr=False)] = None
    add_generation_prompt: Annotated[
        bool, Field(description="the chat template opens the assistant's turn")
    ] = True
    continue_final_message: Annotated[
        bool, Field(description="the last message is left open, and the answer goes on in it")
    ] = False
    chat_template_kwargs: Annotated[
        dict[VariableName, Any],
        Field(
            max_length=limits.MAX_TEMPLATE_VARIABLES,
            repr=False,
            description="variables of the chat template, enable_thinking for one",
        ),
        AfterValidator(_sayable_in_json),
        AfterValidator(_short_variables),
    ] = {}
    token_ids: Annotated[PromptIds | None, Field(repr=False)] = None
    sampling: Sampling = Sampling()
    priority: Annotated[
        int,
        Field(
            ge=-limits.MAX_ABSOLUTE_PRIORITY,
            le=limits.MAX_ABSOLUTE_PRIORITY,
            description="higher goes first among the tenant's own waiting jobs",
        ),
    ] = 0
    deadline_ms: Annotated[
        int | None,
        Field(
            ge=1,
            le=limits.MAX_DEADLINE_MS,
            description="milliseconds from the record's log-append time",
        ),
    ] = None
    reply_partition: Annotated[
        int | None,
        Field(ge=0, le=limits.MAX_PARTITION, description="nil: by the hash of the id"),
    ] = None
    reply_from: Annotated[
        int | None,
        Field(
            ge=0,
            le=limits.MAX_OFFSET,
            description="end offset of the reply partition when the job was sent",
        ),
    ] = None
    metadata: Annotated[Metadata, Field(description="echoed in the terminal", repr=False)] = {}
    strict: Annotated[bool, Field(description="unknown fields are refused by name")] = False

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        given = [self.prompt, self.messages, self.token_ids]
        if given.count(None) != len(given) - 1:
            raise PydanticCustomError(
                "one_prompt", "exactly one of prompt, messages, token_ids must be given"
            )
        return self

    @model_validator(mode="after")
    def _templates_have_messages(self) -> Self:
        told = self.tools or self.continue_final_message or self.chat_template_kwargs
        if self.messages is None and (told or not self.add_generation_prompt):
            raise PydanticCustomError(
                "no_messages",
                "tools, chat_template_kwargs, add_generation_prompt and continue_final_message go "
                "with messages",
            )
        return self


class Cancel(BaseModel):
    """Ends the tenant's job of this id with error `cancelled`; same key as the job."""

    model_config = CONFIG

    id: JobId
    tenant: Tenant

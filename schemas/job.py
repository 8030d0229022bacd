"""What a tenant asks for: a job, or the cancellation of one.

Neither errors nor reprs hold the prompt, since either would carry it into logs.
"""

from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from aril.schemas import limits, names
from aril.schemas.adapters import Adapter, AdapterScale, WeightedAdapters, not_shared
from aril.schemas.conversation import Messages, TemplateVariables, Tools
from aril.schemas.sampling import Sampling
from aril.schemas.strictness import CONFIG, TokenId

JobId = Annotated[str, Field(pattern=names.JOB_ID_PATTERN)]
Tenant = Annotated[
    str,
    Field(pattern=names.NAME_PATTERN, json_schema_extra={"not": {"const": names.SHARED}}),
    AfterValidator(not_shared),
]
MetadataKey = Annotated[str, Field(max_length=limits.MAX_METADATA_KEY_CHARS)]
MetadataValue = Annotated[str, Field(max_length=limits.MAX_METADATA_VALUE_CHARS)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue], Field(max_length=limits.MAX_METADATA_ENTRIES)
]
PromptIds = Annotated[
    tuple[TokenId, ...],
    Field(strict=False, fail_fast=True, min_length=1, max_length=limits.MAX_PROMPT_TOKENS),
]


class Job(BaseModel):
    """One prompt to complete."""

    model_config = CONFIG

    id: JobId
    tenant: Tenant
    adapter: Annotated[Adapter | None, Field(description="nil is the bare backbone")] = None
    adapters: Annotated[
        WeightedAdapters | None,
        Field(description="several at once, in place of adapter: what they add is added up"),
    ] = None
    adapter_scale: AdapterScale = 1.0
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
        TemplateVariables,
        Field(
            repr=False,
            description="variables of the chat template, enable_thinking for one",
        ),
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
    def _adapters_are_told_one_way(self) -> Self:
        if self.adapter is not None and self.adapters is not None:
            raise PydanticCustomError("two_adapters", "only one of adapter, adapters may be given")
        if self.adapter_scale != 1 and self.adapter is None and self.adapters is None:
            raise PydanticCustomError("no_adapter", "adapter_scale goes with adapter or adapters")
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

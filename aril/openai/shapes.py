"""The objects of the OpenAI interface that answer a request, as types.

What vLLM adds to them (`token_ids`, `prompt_logprobs`) and what the contract does (`aril`) is
there only where it was asked for, or is known.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

FinishReason = Literal["stop", "length"]


class TopLogprob(TypedDict):
    """One of the most likely tokens of a place."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """The token that was chosen, and the most likely ones."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """Of a chat's answer, or of what a chunk adds to it."""

    content: list[TokenLogprob]
    refusal: None


class TextLogprobs(TypedDict):
    """The same in the older form: an element a token; `text_offset` is in characters."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class PromptLogprob(TypedDict):
    """One token of a prompt, or of the most likely ones in its place, as vLLM has it."""

    logprob: float
    rank: int | None
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""A row a token of the prompt, by token id; none for the first."""


class MixedAdapter(TypedDict):
    """One adapter of a mixture."""

    name: str
    digest: str
    weight: float


class Told(TypedDict):
    """What the service says of one answer beyond OpenAI's words."""

    job: str
    adapter: str | None
    digest: str | None
    adapters: list[MixedAdapter]
    base: str
    base_digest: str | None
    seed: int
    queue_ms: float
    ttft_ms: float
    total_ms: float


class Usage(TypedDict):
    """Tokens read and written; a prompt that has several answers counts once."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _Choice(TypedDict):
    index: int
    finish_reason: FinishReason
    token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogprobs | None]
    aril: Told


class ChatMessage(TypedDict):
    """The answer as a turn of the chat."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(_Choice):
    """One answer of a chat."""

    message: ChatMessage
    logprobs: ChatLogprobs | None


class TextChoice(_Choice):
    """One text that goes on from a prompt."""

    text: str
    logprobs: TextLogprobs | None


class ChatCompletion(TypedDict):
    """What `/v1/chat/completions` answers."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    system_fingerprint: str | None


class TextCompletion(TypedDict):
    """What `/v1/completions` answers, in one piece."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    system_fingerprint: str | None


class Delta(TypedDict, total=False):
    """What a chunk adds to the turn."""

    role: Literal["assistant"]
    content: str


class _ChunkChoice(TypedDict):
    index: int
    finish_reason: FinishReason | None
    token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogprobs | None]
    aril: NotRequired[Told]


class ChatChunkChoice(_ChunkChoice):
    """What a chunk says of one answer of a chat."""

    delta: Delta
    logprobs: ChatLogprobs | None


class TextChunkChoice(_ChunkChoice):
    """What a chunk says of one text."""

    text: str
    logprobs: TextLogprobs | None


class ChatChunk(TypedDict):
    """One event of a streamed chat. `usage` is there if it was asked for, null but in the last."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage | None]


class TextChunk(TypedDict):
    """One event of a streamed text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChunkChoice]
    usage: NotRequired[Usage | None]

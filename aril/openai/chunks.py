"""The events of a request's streams → the chunks of a streamed response.

chunks = Chunks(asked, id="chatcmpl-…", created=int(time.time()))
for at, stream in enumerate(streams):         # or all at once: each choice by itself
    send(chunks.opening(at))
    async for event in stream:
        send(chunks.of(at, stream.job, event))
send(chunks.closing())                        # then, of the protocol: data: [DONE]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from aril.openai.answers import told_of
from aril.openai.errors import Withdrawn
from aril.openai.logprobs import chat_logprobs, text_logprobs
from aril.openai.responses import prompt_rows, usage_of
from aril.schemas import DoneEvent, ResetEvent, TokensEvent

if TYPE_CHECKING:
    from aril.openai.common import Asked
    from aril.openai.logprobs import TokenBytes
    from aril.openai.shapes import (
        ChatChunk,
        ChatChunkChoice,
        TextChunk,
        TextChunkChoice,
        Usage,
    )
    from aril.schemas import Event

    Chunk = ChatChunk | TextChunk
    Choice = ChatChunkChoice | TextChunkChoice


class Chunks:
    """The chunks of one response. Texts, tokens and log probabilities of a choice add up to it."""

    def __init__(
        self,
        asked: Asked,
        *,
        id: str,  # noqa: A002 - what it is called there
        created: int,
        token_bytes: TokenBytes | None = None,
    ) -> None:
        """Begin a response; `created` is in seconds since 1970."""
        self._asked = asked
        self._id = id
        self._created = created
        self._token_bytes = token_bytes
        self._shown = [0] * len(asked.jobs)  # characters of each answer
        self._tokens = [0] * len(asked.jobs)
        self._ends: dict[int, DoneEvent] = {}

    def opening(self, at: int) -> list[Chunk]:
        """Return what comes before the first event of choice `at`: the role, or what is echoed."""
        if self._asked.endpoint == "chat.completion":
            first: ChatChunkChoice = {
                "index": at,
                "delta": {"role": "assistant", "content": ""},
                "logprobs": None,
                "finish_reason": None,
            }
            return [self._chunk(first)]
        if not self._asked.echoed:
            return []
        echo = self._piece(at, self._asked.echoed[at])
        self._shown[at] = 0  # of the answer nothing has been streamed
        return [self._chunk(echo)]

    def of(self, at: int, job: str, event: Event) -> list[Chunk]:
        """Return the chunk of the next event of choice `at`; none if it adds nothing.

        There is never more than one, so whoever has taken an event whole stands behind its chunk.
        Raises `Withdrawn` at a reset behind something that was streamed.
        """
        if isinstance(event, TokensEvent):
            return self._adding(at, event)
        if isinstance(event, DoneEvent):
            return self._ending(at, job, event)
        if isinstance(event, ResetEvent) and self._given(at):
            raise Withdrawn
        return []

    def closing(self) -> list[Chunk]:
        """Return the chunk of what all choices cost, where that was asked for."""
        if not self._asked.include_usage:
            return []
        ends = [self._ends[at] for at in range(len(self._asked.jobs))]
        return [self._chunk(usage=usage_of(ends, self._asked.n))]

    @property
    def _tells_tokens(self) -> bool:
        return self._asked.top_logprobs is not None or self._asked.return_token_ids

    def _given(self, at: int) -> bool:
        # Tokens whose text is held back are not given, unless they are told themselves.
        return self._shown[at] > 0 or (self._tells_tokens and self._tokens[at] > 0)

    def _adding(self, at: int, event: TokensEvent) -> list[Chunk]:
        self._tokens[at] += len(event.ids)
        if not (event.text or self._tells_tokens):
            return []
        piece = self._piece(at, event.text, event)
        if self._asked.return_token_ids:
            piece["token_ids"] = [*event.ids]
        return [self._chunk(piece)]

    def _ending(self, at: int, job: str, event: DoneEvent) -> list[Chunk]:
        self._ends[at] = event
        last = self._piece(at, event.text)
        last["finish_reason"] = event.finish_reason
        last["aril"] = told_of(job, event)
        if (rows := prompt_rows(self._asked, at, event, self._token_bytes)) is not None:
            last["prompt_logprobs"] = rows
        return [self._chunk(last)]

    def _piece(self, at: int, text: str = "", event: TokensEvent | None = None) -> Choice:
        """Return what adds `text` to choice `at`, with the log probabilities of an event."""
        offset = self._shown[at]
        self._shown[at] += len(text)
        rows = None if event is None or self._asked.top_logprobs is None else event.logprobs
        ids = () if event is None else event.ids
        if self._asked.endpoint == "chat.completion":
            return {
                "index": at,
                "delta": {"content": text} if text else {},
                "logprobs": None if rows is None else chat_logprobs(ids, rows, self._token_bytes),
                "finish_reason": None,
            }
        offsets = [offset] * len(ids)
        return {
            "index": at,
            "text": text,
            "logprobs": None
            if rows is None
            else text_logprobs(ids, rows, self._token_bytes, offsets),
            "finish_reason": None,
        }

    def _chunk(self, *choices: Choice, usage: Usage | None = None) -> Chunk:
        chat = self._asked.endpoint == "chat.completion"
        chunk: dict[str, object] = {
            "id": self._id,
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": self._created,
            "model": self._asked.model,
            "choices": [*choices],
        }
        if self._asked.include_usage:
            chunk["usage"] = usage
        return cast("Chunk", chunk)  # its kind goes with its choices' kind

"""Log probabilities in the forms that the two endpoints have for them.

The wire names tokens by id. What text a token is only its tokenizer knows: whoever has one passes
`token_bytes`; without it a token is called `token_id:<id>`, as vLLM does on request.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.openai.shapes import (
        ChatLogprobs,
        PromptLogprob,
        PromptLogprobs,
        TextLogprobs,
        TopLogprob,
    )
    from aril.schemas import PromptLogprobs as PromptRows
    from aril.schemas import TokenLogprobs

TokenBytes = Callable[[int], bytes]
"""What a token stands for: a piece of text in UTF-8, which may begin or end inside of a character.
"""
PREFIX: Final = "token_id:"
UNKNOWN: Final = -1


def name_of(token: int, token_bytes: TokenBytes | None) -> str:
    """Return what a token is called."""
    if token_bytes is None:
        return f"{PREFIX}{token}"
    return token_bytes(token).decode("utf-8", "replace")


def chat_logprobs(
    ids: Sequence[int], rows: Sequence[TokenLogprobs], token_bytes: TokenBytes | None
) -> ChatLogprobs:
    """Return tokens and the row of each in the form of chats."""
    return {
        "content": [
            {
                **_one(token, row.chosen, token_bytes),
                "top_logprobs": [_one(other, logprob, token_bytes) for other, logprob in row.top],
            }
            for token, row in zip(ids, rows, strict=True)
        ],
        "refusal": None,
    }


def text_logprobs(
    ids: Sequence[int],
    rows: Sequence[TokenLogprobs],
    token_bytes: TokenBytes | None,
    offsets: Sequence[int],
) -> TextLogprobs:
    """Return tokens and the row of each in the form of texts.

    `top_logprobs` has the chosen token too. `offsets` say where in the text each token begins, as
    well as is known: that of the piece of text that it came with.
    """
    tops = []
    for token, row in zip(ids, rows, strict=True):
        top = {name_of(other, token_bytes): logprob for other, logprob in reversed(row.top)}
        tops.append(top | {name_of(token, token_bytes): row.chosen})
    return {
        "tokens": [name_of(token, token_bytes) for token in ids],
        "token_logprobs": [row.chosen for row in rows],
        "top_logprobs": tops,
        "text_offset": [*offsets],
    }


def prompt_logprobs(
    ids: Sequence[int] | None, rows: PromptRows, token_bytes: TokenBytes | None
) -> PromptLogprobs:
    """Return a prompt's rows as vLLM has them, by token id; the prompt's own token comes first.

    `ids` are the prompt's tokens, if the caller knows them. The wire does not name them: without
    them its own token is called -1, and may be there under its id as well.
    """
    return [
        None if row is None else _row(UNKNOWN if ids is None else ids[at], row, token_bytes)
        for at, row in enumerate(rows)
    ]


def _row(own: int, row: TokenLogprobs, token_bytes: TokenBytes | None) -> dict[str, PromptLogprob]:
    ranks = {token: rank for rank, (token, _) in enumerate(row.top, start=1)}
    each = {own: row.chosen} | {token: logprob for token, logprob in row.top if token != own}
    return {
        str(token): {
            "logprob": logprob,
            "rank": ranks.get(token),
            "decoded_token": "" if token == UNKNOWN else name_of(token, token_bytes),
        }
        for token, logprob in each.items()
    }


def _one(token: int, logprob: float, token_bytes: TokenBytes | None) -> TopLogprob:
    raw = None if token_bytes is None else [*token_bytes(token)]
    return {"token": name_of(token, token_bytes), "logprob": logprob, "bytes": raw}

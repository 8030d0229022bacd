"""The log probabilities of a prompt's tokens, on the wire one flat list of numbers.

A row for each token, as in a tokens record, would be more arrays than a record may hold. All rows
here have the same length, so none of them needs one: `top` pairs behind each first number.
"""

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

from aril.schemas import limits
from aril.schemas.reply import PromptLogprobs, TokenLogprobs


def pack_prompt_logprobs(rows: PromptLogprobs) -> dict[str, Any]:
    """Return the field of a `done`. ValueError for rows that no reader would accept."""
    if not rows or rows[0] is not None:
        raise ValueError("prompt_logprobs: the first token has none")
    told = [row for row in rows[1:] if row is not None]
    top = len(told[0].top) if told else 0
    numbers = [number for row in told for number in (row.chosen, *chain.from_iterable(row.top))]
    fits = len(told) == len(rows) - 1 and all(len(row.top) == top for row in told)
    if not fits or len(numbers) > limits.MAX_PROMPT_LOGPROB_NUMBERS:
        raise ValueError(
            f"prompt_logprobs: rows of one length, at most {limits.MAX_PROMPT_LOGPROB_NUMBERS} "
            f"numbers together, not {len(numbers)}"
        )
    return {"top": top, "numbers": numbers}


def unpack_prompt_logprobs(value: object) -> PromptLogprobs:
    """Return the rows of such a field. ValueError for one that is not valid."""
    if not isinstance(value, dict):
        raise ValueError("not a map")  # noqa: TRY004 - nobody's type is wrong, a record is
    top, numbers = value.get("top"), value.get("numbers")
    if type(top) is not int or not 0 <= top <= limits.MAX_LOGPROBS or type(numbers) is not list:
        raise ValueError("top and numbers")
    width = 1 + 2 * top
    if len(numbers) > limits.MAX_PROMPT_LOGPROB_NUMBERS or len(numbers) % width:
        raise ValueError("not so many numbers")
    return (None, *(_row(numbers[at : at + width]) for at in range(0, len(numbers), width)))


def _row(numbers: Sequence[Any]) -> TokenLogprobs:
    tokens, values = numbers[1::2], numbers[::2]
    if not all(type(token) is int and 0 <= token <= limits.MAX_TOKEN_ID for token in tokens):
        raise ValueError("a token id")
    if not all(type(each) in {int, float} and math.isfinite(each) for each in values):
        raise ValueError("a number")
    chosen, *rest = map(float, values)
    return TokenLogprobs(chosen, tuple(zip(tokens, rest, strict=True)))

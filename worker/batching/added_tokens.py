"""Text with tokens that only an adapter knows, by the backbone's tokenizer.

A tokenizer cuts a text at added tokens first and tokenises what is between them. So each token of
the adapter's is put into the text as one that the backbone has added itself, and its id is put back
where that one stands in the answer: what is between is cut as if the tokenizer knew them all.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from aril.schemas import ErrorCode, JobError

if TYPE_CHECKING:
    from collections.abc import Mapping


class AddedTokens:
    """Encodes by one tokenizer. For one thread."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        known = getattr(tokenizer, "added_tokens_decoder", {})
        plain = {
            number: str(token)
            for number, token in known.items()
            if token.special
            and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
        }
        self._stand_in = min(plain.items(), default=None)

    def encode(self, text: str, added: Mapping[str, int], *, special: bool) -> tuple[int, ...]:
        """Return the tokens of `text`, those of `added` among them, by their ids.

        `special`: with what the tokenizer puts around a text. JobError `invalid_job` where this
        tokenizer cannot.
        """
        longest_first = sorted(added, key=len, reverse=True)
        found = [*re.finditer("|".join(map(re.escape, longest_first)), text)] if added else []
        if not found:
            return tuple(self._tokenizer.encode(text, add_special_tokens=special))
        if self._stand_in is None:
            raise _impossible()
        number, stand_in = self._stand_in
        parts, places, end = [], {}, 0
        length = 0
        for match in found:
            before = text[end : match.start()]
            parts += [before, stand_in]
            places[length + len(before)] = added[match[0]]
            length += len(before) + len(stand_in)
            end = match.end()
        encoded = self._tokenizer(
            "".join([*parts, text[end:]]), add_special_tokens=special, return_offsets_mapping=True
        )
        ids = list(encoded["input_ids"])
        for at, (start, stop) in enumerate(encoded["offset_mapping"]):
            if ids[at] == number and stop - start == len(stand_in) and start in places:
                ids[at] = places.pop(start)
        if places:
            raise _impossible()
        return tuple(ids)


def _impossible() -> JobError:
    return JobError(
        ErrorCode.INVALID_JOB,
        "prompt: this backbone's tokenizer cannot find the adapter's own tokens in it, send"
        " token_ids",
    )

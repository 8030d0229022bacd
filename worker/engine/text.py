"""Token ids to text, piece by piece, without ever showing half a character.

The pieces of an answer joined are exactly `tokenizer.decode(ids, skip_special_tokens=True)`. Where
it goes on in its prompt's text they are what it adds to that: decoders like Llama 2's leave out a
space before the very first token, and an answer's first one is then not the very first.
`tokenizers.decoders.DecodeStream` does not promise that: it waits at any text that ends in U+FFFD,
decoding an ever longer list meanwhile, and raises when the decoder takes back characters of byte
tokens because a later byte makes their run invalid (docs/decisions/038-text-pieces.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer

_REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"

# Tokens of context that are kept while text is held back, and how many may gather before the rest
# is let go. A token has at least one byte, and the bytes of an unfinished character are at most 3.
_CONTEXT: Final = 8
_MAX_WINDOW: Final = 32


class Detokenizer:
    """A tokenizer's decoder and what streaming must know of its tokens; shared by all answers."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._special = {
            token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special
        }
        self._bytes: set[int] = set()  # sentencepiece's byte fallback: <0x00> to <0xFF>
        for byte in range(256):
            name = f"<0x{byte:02X}>"
            token = tokenizer.token_to_id(name)
            if token is not None and self.decode([token]) != name:
                self._bytes.add(token)

    def special(self, text: str) -> int | None:
        """Return the special token that is written so, None for any other text."""
        token = self._tokenizer.token_to_id(text)
        return token if token in self._special else None

    def decode(self, ids: list[int]) -> str:
        """Text of these ids, special tokens left out."""
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text

    def is_silent(self, token: int) -> bool:
        """Whether the token never has text: it is special, or not in the vocabulary."""
        return token in self._special or self._tokenizer.id_to_token(token) is None

    def context(self, prompt_ids: Sequence[int]) -> list[int]:
        """Return a token of a prompt that an answer is decoded behind; none if it ends in no text.

        A byte, or a part of a character, would be taken together with the answer's: the token
        before it serves as well.
        """
        if not prompt_ids or self.is_silent(prompt_ids[-1]):
            return []
        near = [
            token
            for token in prompt_ids[-_CONTEXT:]
            if not self.is_byte(token) and not self.is_silent(token)
        ]
        return next(
            ([token] for token in reversed(near) if _REPLACEMENT not in self.decode([token])), []
        )

    def is_byte(self, token: int) -> bool:
        """Whether the token is one byte of a run that the decoder takes or replaces as a whole."""
        return token in self._bytes


class TextStream:
    """The text of one answer as its tokens come; a pure function of the ids pushed so far.

    `context` are tokens before the answer's first (`Detokenizer.context`); their text is not its.
    """

    def __init__(self, detokenizer: Detokenizer, context: Sequence[int] = ()) -> None:
        self._detokenizer = detokenizer
        # The newest tokens, and how many characters of their text have been returned. The last
        # settled token stays as context: decoders drop a space before the very first token only.
        self._window = [*context]
        self._shown = len(detokenizer.decode(self._window)) if context else 0

    def push(self, token: int) -> str:
        """Return the text that became certain with this token; may be empty."""
        if self._detokenizer.is_silent(token):
            return ""
        self._window.append(token)
        if self._detokenizer.is_byte(token):
            return ""
        text = self._detokenizer.decode(self._window)
        # Only the last replacement character can be the beginning of a character to come.
        certain = len(text) - text.endswith(_REPLACEMENT)
        piece = text[self._shown : certain]
        self._shown = certain
        if self._shown == len(text):
            self._keep(1, held=0)
        elif len(self._window) > _MAX_WINDOW:
            self._keep(_CONTEXT, held=len(text) - self._shown)
        return piece

    def flush(self) -> str:
        """Return what was held back; no token may follow."""
        return self._detokenizer.decode(self._window)[self._shown :]

    def _keep(self, tokens: int, held: int) -> None:
        """Let go all but the last tokens; the last `held` characters are still to be shown."""
        if len(self._window) > tokens:
            del self._window[:-tokens]
        self._shown = len(self._detokenizer.decode(self._window)) - held

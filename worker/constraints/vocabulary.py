"""A backbone's tokens as constraints need them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer

from aril.worker.constraints.grammar import make_tokenizer

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a backbone, as far as constraints need them."""

    tokenizer_json: str
    size: int  # of tokenizer or logits, whichever is wider: tokens without text never come
    eos_ids: frozenset[int]

    @classmethod
    def of(cls, tokenizer: Any, vocab_size: int, eos_ids: frozenset[int]) -> Vocabulary:
        """Take it from transformers' tokenizer and the width of the logits."""
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.no_padding()
        backend.no_truncation()
        size = max(vocab_size, max(backend.get_vocab(with_added_tokens=True).values()) + 1)
        return cls(backend.to_str(), size, eos_ids)

    @cached_property
    def engine(self) -> LLTokenizer:
        """The engine's form of it: 0.25 s and 30 MB for 50,000 tokens. Raises ValueError."""
        return make_tokenizer(self.tokenizer_json, self.size, sorted(self.eos_ids))

    @cached_property
    def dropped_blanks(self) -> NDArray[np.uint32] | None:
        """Bits of the tokens whose first blank a decoder drops at an answer's beginning.

        None for decoders that drop none. Such a token would show as something else than what the
        engine took it for.
        """
        engine = self.engine
        found = [
            token for token in range(self.size) if engine.decode_bytes([token]).startswith(b" ")
        ]
        backend = Tokenizer.from_str(self.tokenizer_json)
        if all(backend.decode([token]).startswith(" ") for token in found[:1]):
            return None
        bits = np.zeros((self.size + 31) // 32, np.uint32)
        for token in found:
            bits[token >> 5] |= np.uint32(1 << (token & 31))
        return bits

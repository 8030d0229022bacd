"""Each engine behind the same calls: a tokenizer, a compiled schema, masks along an answer."""

from __future__ import annotations

import importlib
import json
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Walk(Protocol):
    """One answer under way."""

    def fill(self) -> None:
        """Write the mask of the next token into the tensor."""

    def take(self, token: int) -> bool:
        """Go on by one token; False where it may not come."""


class Engine(Protocol):
    """What is measured."""

    def compile(self, schema: dict[str, Any]) -> Any:
        """Return what walks begin from. Raises ValueError for a schema that it does not take."""

    def walk(self, compiled: Any) -> Walk:
        """Begin an answer."""


class _Mask:
    def __init__(self, vocab: int) -> None:
        self.tensor = torch.zeros((1, (vocab + 31) // 32), dtype=torch.int32)


class LLGuidance(_Mask):
    """llguidance: lexer by derivatives, Earley parser, masks made as they are needed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab: int) -> None:
        super().__init__(vocab)
        self._module: Any = importlib.import_module("llguidance")
        text = tokenizer.backend_tokenizer.to_str()
        self._tokenizer = self._module.LLTokenizer(text, n_vocab=vocab)

    def compile(self, schema: dict[str, Any]) -> Any:
        """Compile it."""
        grammar = self._module.LLMatcher.grammar_from_json_schema(json.dumps(schema))
        matcher = self._module.LLMatcher(self._tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher

    def walk(self, compiled: Any) -> Walk:
        """Copy the matcher."""
        mask, matcher = self.tensor, compiled.deep_copy()

        class _Walk:
            def fill(self) -> None:
                matcher.unsafe_compute_mask_ptr(mask.data_ptr(), mask.nbytes)

            def take(self, token: int) -> bool:
                return bool(matcher.consume_token(token))

        return _Walk()


class XGrammar(_Mask):
    """xgrammar: a pushdown automaton, most of each mask made when the schema is compiled."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab: int) -> None:
        super().__init__(vocab)
        self._module: Any = importlib.import_module("xgrammar")
        info = self._module.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab)
        self._compiler = self._module.GrammarCompiler(info, max_threads=1, cache_enabled=False)

    def compile(self, schema: dict[str, Any]) -> Any:
        """Compile it."""
        try:
            return self._compiler.compile_json_schema(json.dumps(schema))
        except RuntimeError as error:
            raise ValueError(str(error)) from error

    def walk(self, compiled: Any) -> Walk:
        """Begin a matcher."""
        mask, matcher = self.tensor, self._module.GrammarMatcher(compiled)

        class _Walk:
            def fill(self) -> None:
                matcher.fill_next_token_bitmask(mask)

            def take(self, token: int) -> bool:
                return bool(matcher.accept_token(token))

        return _Walk()


class OutlinesCore(_Mask):
    """outlines-core: the schema as one regular expression, all its states and masks made ahead."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab: int) -> None:
        super().__init__(vocab)
        self._module: Any = importlib.import_module("outlines_core")
        self._schemas: Any = importlib.import_module("outlines_core.json_schema")
        decode = {char: byte for byte, char in _bytes_to_unicode().items()}
        end = tokenizer.eos_token_id
        tokens: dict[bytes, list[int]] = {}
        special = {*tokenizer.all_special_ids}
        for text, token in tokenizer.get_vocab().items():
            if token not in special:
                tokens.setdefault(bytes(decode[char] for char in text), []).append(token)
        self._vocabulary = self._module.Vocabulary(end, tokens)

    def compile(self, schema: dict[str, Any]) -> Any:
        """Compile it."""
        regex = self._schemas.build_regex_from_schema(json.dumps(schema))
        return self._module.Index(regex, self._vocabulary)

    def walk(self, compiled: Any) -> Walk:
        """Begin a guide."""
        mask, guide = self.tensor, self._module.Guide(compiled)

        class _Walk:
            def fill(self) -> None:
                guide.write_mask_into(mask.data_ptr(), mask.numel(), mask.element_size())

            def take(self, token: int) -> bool:
                try:
                    guide.advance(token, return_tokens=False)
                except ValueError:
                    return False
                return True

        return _Walk()


def _bytes_to_unicode() -> dict[int, str]:
    """GPT-2's letters for bytes, which byte-level vocabularies are written in."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in kept)
    return {byte: chr(byte) for byte in kept} | {
        byte: chr(256 + number) for number, byte in enumerate(others)
    }


PROVIDERS: dict[str, type[LLGuidance | XGrammar | OutlinesCore]] = {
    "llguidance": LLGuidance,
    "xgrammar": XGrammar,
    "outlines_core": OutlinesCore,
}

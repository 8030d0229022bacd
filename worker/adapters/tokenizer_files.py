"""A folder's tokenizer files: whether its tokens are the backbone's, and its chat template.

Trainers save the tokenizer beside the weights. Prompts are tokenised by the backbone's: a folder
that was trained with other tokens would get other answers than its trainer saw, without a sign.
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from aril.worker.adapters.chat_template import (
    CONFIG,
    MAX_TEMPLATE_BYTES,
    TEMPLATE_FILE,
    TOOLS_FILE,
    ChatTemplate,
    backbones_template,
    read_template,
    special_token,
)
from aril.worker.adapters.faults import AdapterFault, quoted
from aril.worker.adapters.json_files import read_object

TOKENIZER: Final = "tokenizer.json"
ADDED: Final = "added_tokens.json"
SPECIAL_MAP: Final = "special_tokens_map.json"
FILES: Final[Mapping[str, int]] = {
    TEMPLATE_FILE: MAX_TEMPLATE_BYTES,
    TOOLS_FILE: MAX_TEMPLATE_BYTES,
    CONFIG: 8 << 20,
    SPECIAL_MAP: 1 << 20,
    ADDED: 4 << 20,
    TOKENIZER: 64 << 20,
}
"""What of a tokenizer is read, and of how many bytes at most; Gemma's tokenizer.json has 34 MB."""
_MAX_VALUES: Final = 4_000_000
"""In a file, about: Gemma's has 1.3 million, and each takes some 60 bytes once decoded."""
_MAX_TOKEN_CHARS: Final = 256  # of an added one
_MAX_NAMED: Final = 5  # tokens in a message


class TokenizerFindings(NamedTuple):
    """What a folder's tokenizer files say."""

    template: ChatTemplate | None
    """Its own, where it renders otherwise than the backbone's."""
    added: Mapping[str, int]
    """Tokens that only the adapter has, with their ids."""


class BackboneTokenizer:
    """What a backbone's tokenizer calls its tokens, and how it renders. Thread-safe."""

    def __init__(self, tokenizer: Any, folder: Path | None = None) -> None:
        """Look at transformers' fast tokenizer, and at the file that it was read from."""
        self._tokens = tokenizer.backend_tokenizer
        self.template = backbones_template(tokenizer)
        file = None if folder is None else folder / TOKENIZER
        self._file = None if file is None or not file.is_file() else _digest(file.read_bytes())

    def read(
        self, files: Mapping[str, bytes], rows: int, trained: Collection[int]
    ) -> TokenizerFindings:
        """Judge what was read of `FILES`; AdapterFault names the first token that does not fit.

        `rows` is how many vectors the backbone's embeddings have, `trained` the ids whose vectors
        are the adapter's own.
        """
        config = {**_object(files, SPECIAL_MAP), **_object(files, CONFIG)}
        added: dict[str, int] = {}
        greedy = set()
        for file, token, number, plain in self._named(files, config):
            known = self._tokens.token_to_id(token)
            if known == number:
                continue
            other = self._tokens.id_to_token(number) if number < 1 << 32 else None
            if known is not None or other is not None:
                raise AdapterFault(
                    f"{file}: its token {quoted(token)} has the id {number}, where the backbone's"
                    f" tokenizer has {quoted(other) if known is None else known}"
                )
            added[token] = number
            if not plain:
                greedy.add(token)
        added.pop(special_token(config, "pad_token") or "", None)  # fills batches, in no prompt
        self._check_added(added, rows, trained)
        if taken := sorted(greedy & added.keys()):
            raise AdapterFault(
                f"its token {quoted(taken[0])} takes spaces or needs ends of words beside it"
                " (lstrip, rstrip, single_word), which is not supported"
            )
        template = read_template(files, config, self.template.special)
        if template is not None and template.renders_as(self.template):
            template = None
        return TokenizerFindings(template, added)

    def _named(
        self, files: Mapping[str, bytes], config: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, int, bool]]:
        """Yield all tokens that the files name: file, token, id, whether it is found anywhere."""
        decoder = config.get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict):
            raise AdapterFault(f"{CONFIG}: added_tokens_decoder is not an object")
        for number, entry in decoder.items():
            given = entry if isinstance(entry, dict) else {}
            at = int(number) if _is_number(number) else None
            yield CONFIG, *_pair(CONFIG, given.get("content"), at), _is_plain(given)
        for name, value in _object(files, ADDED).items():
            yield ADDED, *_pair(ADDED, name, value), True
        if TOKENIZER in files and _digest(files[TOKENIZER]) != self._file:
            found = _object(files, TOKENIZER)
            model = found.get("model")
            vocabulary = model.get("vocab") if isinstance(model, dict) else None
            if isinstance(vocabulary, list):  # of Unigram: pieces with their scores
                pieces = (
                    each[0] if isinstance(each, list) and each else None for each in vocabulary
                )
                vocabulary_pairs = [(piece, at) for at, piece in enumerate(pieces)]
            else:
                vocabulary_pairs = [*(vocabulary if isinstance(vocabulary, dict) else {}).items()]
            extra = found.get("added_tokens") or []
            if not isinstance(extra, list):
                raise AdapterFault(f"{TOKENIZER}: added_tokens is not an array")
            for token, number in vocabulary_pairs:
                yield TOKENIZER, *_pair(TOKENIZER, token, number), True
            for entry in extra:
                given = entry if isinstance(entry, dict) else {}
                pair = _pair(TOKENIZER, given.get("content"), given.get("id"))
                yield TOKENIZER, *pair, _is_plain(given)

    @staticmethod
    def _check_added(added: Mapping[str, int], rows: int, trained: Collection[int]) -> None:
        for token, number in added.items():
            if number >= rows:
                raise AdapterFault(
                    f"its token {quoted(token)} lies beyond the backbone's embeddings",
                    limit=rows - 1,
                    given=number,
                )
            if len(token) > _MAX_TOKEN_CHARS:
                raise AdapterFault(
                    f"its token {quoted(token)} is too long",
                    limit=_MAX_TOKEN_CHARS,
                    given=len(token),
                )
        bare = [token for token, number in added.items() if number not in trained]
        if bare:
            shown = ", ".join(quoted(token) for token in bare[:_MAX_NAMED])
            more = f" and {len(bare) - _MAX_NAMED} more" if len(bare) > _MAX_NAMED else ""
            raise AdapterFault(
                f"its tokenizer has tokens that neither the backbone knows nor the adapter has"
                f" embeddings of: {shown}{more}"
            )


def _object(files: Mapping[str, bytes], file: str) -> dict[str, Any]:
    if file not in files:
        return {}
    data = files[file]
    values = sum(data.count(sign) for sign in (b",", b"[", b"{"))
    if values > _MAX_VALUES:
        raise AdapterFault(f"{file} has too many values", limit=_MAX_VALUES, given=values)
    return read_object(data, file)


def _pair(file: str, token: object, number: object) -> tuple[str, int]:
    if not isinstance(token, str) or not token or not isinstance(number, int) or number < 0:
        raise AdapterFault(f"{file} has {quoted(token)} with the id {quoted(number)}, no token")
    return token, number


def _is_plain(token: Mapping[str, Any]) -> bool:
    return not any(token.get(flag) for flag in ("lstrip", "rstrip", "single_word"))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10  # noqa: PLR2004 - digits


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()

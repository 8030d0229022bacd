"""The tokenizer's files in a tenant's adapter folder."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aril.worker.adapters.faults import AdapterFault
from aril.worker.adapters.tokenizer_files import FILES, BackboneTokenizer
from tests.fuzz.mutate import bend, bend_tree, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds
from tests.fuzz.targets.configs import told_fault
from tests.support.tiny import CHAT_TEMPLATE, make_tokenizer

if TYPE_CHECKING:
    from random import Random

_ROWS: Final = 390
_TRAINED: Final = frozenset({384, 385})
_ADDED: Final = {"id": 384, "content": "<tool>", "lstrip": False, "special": True}
_TREES: Final[dict[str, Any]] = {
    "tokenizer.json": {
        "added_tokens": [{"id": 1, "content": "<|im_start|>"}, _ADDED],
        "model": {"type": "BPE", "vocab": {"<|endoftext|>": 0, "<tool>": 384}, "merges": []},
    },
    "tokenizer_config.json": {
        "added_tokens_decoder": {"384": _ADDED, "2": {"content": "<|im_end|>"}},
        "chat_template": [{"name": "default", "template": CHAT_TEMPLATE}],
        "bos_token": {"content": "<|im_start|>"},
        "pad_token": "[PAD]",
    },
    "added_tokens.json": {"<tool>": 384, "<call>": 385, "[PAD]": 386},
    "special_tokens_map.json": {"eos_token": "<|im_end|>", "unk_token": {"content": "x"}},
}
_TEMPLATES: Final = ("chat_template.jinja", "additional_chat_templates/tool_use.jinja")


@cache
def _backbone() -> BackboneTokenizer:
    return BackboneTokenizer(make_tokenizer())


def _make_files(rng: Random) -> dict[str, bytes]:
    """Draw some of the files: good ones, bent ones, texts."""
    files = {}
    for name, tree in _TREES.items():
        if chance(rng, 0.5):
            made = copy.deepcopy(tree)
            if chance(rng, 0.5):
                made = bend_tree(rng, made)
            data = json.dumps(made, default=repr, skipkeys=True).encode()
            files[name] = bend(rng, data) if chance(rng, 0.2) else data
    for name in _TEMPLATES:
        if chance(rng, 0.3):
            data = CHAT_TEMPLATE.encode()
            files[name] = bend(rng, data) if chance(rng, 0.5) else pick(rng, (data, b"", b"x"))
    return files


def _check_files(files: dict[str, bytes]) -> str:
    try:
        found = _backbone().read(files, _ROWS, _TRAINED)
    except AdapterFault as fault:
        return told_fault(fault)
    holds(files.keys() <= FILES.keys(), "only what has a bound is read")
    for token, number in found.added.items():
        holds(number in _TRAINED and bool(token), "an added token has a vector, and a name")
    if found.template is not None:
        texts = [found.template.text(tools=tools) for tools in (False, True)]
        holds(any(text is not None for text in texts), "a template has a text")
        holds(all(isinstance(each, str) for each in found.template.special.values()), "words")
    return ACCEPTED


TARGET: Final = Target(
    name="tokenizer-files",
    about="an adapter's tokenizer files: aril.worker.adapters.tokenizer_files",
    share=100,
    make=_make_files,
    check=_check_files,
    size=lambda files: sum(map(len, files.values())),
)

"""The requests that every peer gets, as token ids: the same for all, others in each round.

Each prompt begins with text that no other one has, so that no prefix cache answers for work that
it did not do; the one case that is about sharing has 400 tokens in common within a round.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final, NamedTuple

from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ADAPTERS: Final = ("acme/terse", "blackbeard/pirate", "ledgerly/extract")
MIXED: Final = (*ADAPTERS, None)  # in turn; None is the backbone

PROMPT: Final = 512  # tokens, where prefill is measured
SHARED: Final = 400
OWN: Final = 32

_WORDS: Final = (
    *("autumn", "barley", "cellar", "dock", "eleven", "ferry", "granite", "hotel", "island"),
    *("jar", "kettle", "lantern", "monday", "north", "orchard", "parcel", "quiet", "river"),
    *("station", "thirty", "under", "village", "winter", "yellow", "zinc", "answer", "before"),
    *("carry", "deliver", "every", "four", "gather", "hold", "invoice", "keep", "letter"),
    *("mend", "number", "order", "price", "question"),
)
_QUESTIONS: Final = (  # of the kinds that the demo's adapters were trained on
    "What is the capital of Portugal?",
    "Jonas Lind paid 40 euros to the library in Bergen on 3 March.",
    "How do I boil an egg?",
    "My order has not come. What can I do?",
)


class Asked(NamedTuple):
    """One request: a prompt, an adapter's place in the demo's folder or None, tokens to make."""

    prompt: list[int]
    adapter: str | None
    new: int


class Workload:
    """Makes the requests of each case, in a model's tokens."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))

    def checks(self) -> list[Asked]:
        """Return what all peers must answer alike: each question to each adapter."""
        return [
            Asked(self._ids(_turn("user", text) + "<|im_start|>assistant\n"), adapter, 32)
            for text in _QUESTIONS
            for adapter in MIXED
        ]

    def requests(self, case: str, number: int) -> list[Asked]:
        """Return a case's requests in round `number`; KeyError for an unknown case."""
        count, adapters, length, new = CASES[case]
        common = self._cut(random.Random(f"{case} {number}"), SHARED) if case == "prefix32" else []
        made = []
        for row in range(count):
            words = random.Random(f"{case} {number} {row}")
            size = length or OWN + row * 7 % (OWN + 1)
            prompt = common + self._cut(words, size - len(common))
            made.append(Asked(prompt, adapters[row % len(adapters)], new))
        return made

    def _cut(self, words: random.Random, length: int) -> list[int]:
        """Return a user's turn of so many tokens, whose first words are drawn."""
        head = self._ids("<|im_start|>user\n")
        tail = self._ids("<|im_end|>\n<|im_start|>assistant\n")
        text = self._ids(" ".join(words.choice(_WORDS) for _ in range(length)))
        return head + text[: length - len(head) - len(tail)] + tail

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


class _Case(NamedTuple):
    rows: int
    adapters: Sequence[str | None]  # in turn
    prompt: int  # tokens; 0: 32 to 64
    new: int


CASES: Final = {
    "backbone16": _Case(16, (None,), 0, 64),
    "one16": _Case(16, ADAPTERS[1:2], 0, 64),
    "mixed16": _Case(16, MIXED, 0, 64),
    "mixed48": _Case(48, MIXED, 0, 64),
    "context16": _Case(16, MIXED, PROMPT, 64),
    "prefill16": _Case(16, (None,), PROMPT, 1),
    "prefix32": _Case(32, (None,), SHARED + OWN, 16),
}


def _turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"

"""Measure what choosing tokens costs, by settings and by how flat the distributions are.

    python -m benchmarks.sampler    # writes sampler.csv

16 rows of 49,152 logits and of 151,936, one thread. The flatter a row, the more tokens have to be
looked at.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

from aril.schemas import Sampling
from aril.worker.engine.sampler import sample
from benchmarks.record import Row, keep
from benchmarks.turns import in_turns, milliseconds, use_one_thread

if TYPE_CHECKING:
    from collections.abc import Callable

QUESTION = "sampler"
ROWS = 16
VOCABULARIES = (49_152, 151_936)
TURNS = 40
PEAKED = 3.0  # standard deviation of the logits
FLAT = 0.5
PROMPT: Final = tuple(range(2_200))

SETTINGS = {
    "greedy": (PEAKED, Sampling(max_tokens=1, temperature=0.0)),
    "temperature 1": (PEAKED, Sampling(max_tokens=1, temperature=1.0)),
    "top-k 50": (PEAKED, Sampling(max_tokens=1, temperature=1.0, top_k=50)),
    "top-p 0.9": (PEAKED, Sampling(max_tokens=1, temperature=1.0, top_p=0.9)),
    "near-flat": (FLAT, Sampling(max_tokens=1, temperature=1.0)),
    "near-flat, top-p 0.9": (FLAT, Sampling(max_tokens=1, temperature=1.0, top_p=0.9)),
    "near-flat, top-p 0.99": (FLAT, Sampling(max_tokens=1, temperature=1.0, top_p=0.99)),
    "near-flat, min-p 0.1": (FLAT, Sampling(max_tokens=1, temperature=1.0, min_p=0.1)),
    "all equal": (0.0, Sampling(max_tokens=1, temperature=1.0)),
    "repetition penalty": (
        PEAKED,
        Sampling(max_tokens=1, temperature=0.0, repetition_penalty=1.1),
    ),
}


@dataclass
class Drawn:
    """What the sampler needs to know of a row."""

    prompt_ids: tuple[int, ...]
    output_ids: list[int]
    sampling: Sampling
    seed: int
    end_ids: frozenset[int] = frozenset()
    matcher: None = None
    index: int = 0


def way(vocab: int, spread: float, sampling: Sampling) -> Callable[[], float]:
    """Return what times one call, on logits that are copied first: they are overwritten."""
    logits = spread * torch.randn(ROWS, vocab, generator=torch.Generator().manual_seed(1))
    rows = [Drawn(PROMPT, [], sampling, seed) for seed in range(ROWS)]
    return lambda: milliseconds(functools.partial(sample, logits.clone(), rows))


def measure() -> list[Row]:
    """Run all settings in turns."""
    found = in_turns(
        {
            (name, vocab): way(vocab, *told)
            for name, told in SETTINGS.items()
            for vocab in VOCABULARIES
        },
        TURNS,
    )
    return [
        Row.of(
            samples,
            question=QUESTION,
            provider=name,
            metric="one call",
            x=ROWS,
            unit="ms",
            config=f"{ROWS} rows of {vocab} logits, one thread",
        )
        for (name, vocab), samples in found.items()
    ]


if __name__ == "__main__":
    use_one_thread("benchmarks.sampler")
    keep(QUESTION, measure())

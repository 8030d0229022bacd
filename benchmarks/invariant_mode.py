"""Measure what it costs that a row's bits do not depend on the rows beside it.

    python -m benchmarks.invariant_mode    # writes invariant_mode.csv

SmolLM2-135M in float32, the demo's adapters, the same rows in fast and in invariant mode, in turns:
decode steps of 16 rows and of one, and the prefill of one prompt.
"""

from __future__ import annotations

import functools
import statistics
import warnings
from typing import TYPE_CHECKING

import torch

from benchmarks.decoding import decode
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2
from benchmarks.turns import in_turns
from worker.engine.config import EngineConfig
from worker.engine.engine import Engine

if TYPE_CHECKING:
    from worker.adapters import AdapterWeights

QUESTION = "invariant_mode"
ROWS = 16
PROMPT = tuple(1_000 + index * 7 % 20_000 for index in range(128))
TOKENS = 24
TURNS = 3

row = functools.partial(
    Row.of,
    question=QUESTION,
    config=f"SmolLM2-135M float32, {len(PROMPT)} prompt tokens, {torch.get_num_threads()} threads",
)


def load(*, invariant: bool) -> tuple[Engine, list[AdapterWeights | None]]:
    """Load an engine and the demo's three adapters; None is the backbone."""
    backbone = load_smollm2()
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=512,
        slots=4,
        max_rank=MAX_RANK,
        kv_tokens=8192,
        invariant=invariant,
        prefix_cache=False,  # every turn has the same prompts
    )
    return Engine(backbone, config), [None, *demo_adapters(backbone)]


def run(way: tuple[Engine, list[AdapterWeights | None]], rows: int) -> dict[str, float]:
    """Answer rows, the adapters in turn; return the ms of a prompt and of a decode step."""
    engine, adapters = way
    own = [adapters[key % len(adapters)] for key in range(rows)]
    found = decode(engine, own, [PROMPT] * rows, TOKENS)
    return {
        "prefill": 1e3 * found.prefill / rows,
        "decode step": 1e3 * statistics.median_high(found.steps),
    }


def measure() -> list[Row]:
    """Run both modes in turns."""
    measured = []
    modes = {"fast": load(invariant=False), "invariant": load(invariant=True)}
    for rows in (ROWS, 1):
        found = in_turns(
            {name: functools.partial(run, way, rows) for name, way in modes.items()}, TURNS
        )
        for metric in ("prefill", "decode step"):
            times = {name: [each[metric] for each in runs] for name, runs in found.items()}
            measured += [
                row(samples, provider=name, metric=metric, x=rows, unit="ms")
                for name, samples in times.items()
            ]
            slower = ratios(times["invariant"], times["fast"])
            measured.append(
                row(slower, provider="invariant / fast", metric=metric, x=rows, unit="1")
            )
    return measured


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    keep(QUESTION, measure())

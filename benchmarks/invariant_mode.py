"""Measure what it costs that a row's bits do not depend on the rows beside it.

    python -m benchmarks.invariant_mode    # writes invariant_mode.csv

SmolLM2-135M in float32 and bfloat16, on the backbone alone and over the demo's adapters, the same
rows in fast and in invariant mode, in turns: decode steps of 16 rows and of one, and the prefill of
one prompt.
"""

from __future__ import annotations

import functools
import statistics
import warnings
from typing import TYPE_CHECKING

import torch

from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.prompt_pace import UNBOUND
from benchmarks.decoding import decode
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2
from benchmarks.turns import in_turns

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights

QUESTION = "invariant_mode"
ROWS = 16
PROMPT = tuple(1_000 + index * 7 % 20_000 for index in range(128))
TOKENS = 24
TURNS = 3
MODES = ("fast", "invariant")

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load(dtype: torch.dtype, *, invariant: bool) -> tuple[Engine, list[AdapterWeights | None]]:
    """Load an engine and the demo's three adapters; None is the backbone."""
    backbone = load_smollm2(dtype)
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=512,
        slots=4,
        max_rank=MAX_RANK,
        kv_tokens=8192,
        invariant=invariant,
        dtype=dtype,
        step_stretch=UNBOUND,  # prompts come in at once, so that all rows decode together
        prefix_cache=False,  # every turn has the same prompts
    )
    return Engine(backbone, config), [None, *demo_adapters(backbone)]


def run(
    way: tuple[Engine, list[AdapterWeights | None]], rows: int, *, mixed: bool
) -> dict[str, float]:
    """Answer rows, the adapters in turn or none; return the ms of a prompt and of a decode step."""
    engine, adapters = way
    own = [adapters[key % len(adapters)] if mixed else None for key in range(rows)]
    found = decode(engine, own, [PROMPT] * rows, TOKENS)
    return {
        "prefill": 1e3 * found.prefill / rows,
        "decode step": 1e3 * statistics.median_high(found.steps),
    }


def measure() -> list[Row]:
    """Run both modes in turns, in each type."""
    return [row for name in DTYPES for row in in_type(name)]


def in_type(name: str) -> list[Row]:
    """Run both modes in one type."""
    measured: list[Row] = []
    modes = {mode: load(DTYPES[name], invariant=mode == "invariant") for mode in MODES}
    threads = torch.get_num_threads()
    for rows, mixed in ((ROWS, True), (ROWS, False), (1, False)):
        who = "backbone and 3 adapters" if mixed else "backbone"
        row = functools.partial(
            Row.of,
            question=QUESTION,
            config=f"SmolLM2-135M {name}, {who}, {len(PROMPT)} prompt tokens, {threads} threads",
        )
        found = in_turns(
            {name: functools.partial(run, way, rows, mixed=mixed) for name, way in modes.items()},
            TURNS,
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

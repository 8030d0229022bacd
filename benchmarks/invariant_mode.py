"""Measure what it costs that a row's bits do not depend on the rows beside it.

    python -m benchmarks.invariant_mode

SmolLM2-135M in float32, the demo's adapters, the same rows in fast and in invariant mode, in turns:
decode steps of 16 rows and of one, and the prefill of one prompt.
"""

from __future__ import annotations

import functools
import time
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from aril.demo.model import MODEL_NAME, ensure_model
from benchmarks.cpu_engine import DEMO, median
from benchmarks.record import Row, show, write
from schemas import Sampling
from worker.adapters import AdapterStore
from worker.engine.config import EngineConfig
from worker.engine.engine import Engine
from worker.engine.model import load_backbone
from worker.engine.request import GenerationRequest

if TYPE_CHECKING:
    from pathlib import Path

    from worker.adapters import AdapterWeights

QUESTION = "invariant_mode"
ROWS = 16
PROMPT = 128
TOKENS = 24
TURNS = 3
CONFIG = EngineConfig(max_rows=ROWS, max_step_tokens=512, slots=4, max_rank=32, kv_tokens=8192)

row = functools.partial(
    Row.of,
    question=QUESTION,
    config=f"SmolLM2-135M float32, {PROMPT} prompt tokens, {torch.get_num_threads()} threads",
)


def load(model: Path, *, invariant: bool) -> tuple[Engine, list[AdapterWeights | None]]:
    """Load an engine and the demo's three adapters; None is the backbone."""
    backbone = load_backbone(model, "cpu", torch.float32)
    store = AdapterStore(
        DEMO, base_model=MODEL_NAME, linear_shapes=backbone.linear_shapes, max_rank=32
    )
    named = [("acme", "terse"), ("blackbeard", "pirate"), ("ledgerly", "extract")]
    engine = Engine(backbone, replace(CONFIG, invariant=invariant))
    return engine, [None, *(store.load(store.find(*each)) for each in named)]


def run(engine: Engine, adapters: list[AdapterWeights | None], rows: int) -> tuple[float, float]:
    """Answer rows, the adapters in turn; return the seconds of a prompt and of a decode step."""
    prompt = tuple(1_000 + index * 7 % 20_000 for index in range(PROMPT))
    for key in range(rows):
        engine.submit(
            GenerationRequest(
                key=key,
                prompt_ids=prompt,
                sampling=Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
                seed=0,
                adapter=adapters[key % len(adapters)],
            )
        )
    decodes, prefill = [], 0.0
    while engine.has_work:
        before = time.perf_counter()
        engine.step()
        spent = time.perf_counter() - before
        if engine.stats().tokens == rows:
            decodes.append(spent)
        else:
            prefill += spent
    return prefill / rows, median(decodes)


def measure() -> list[Row]:
    """Run both modes in turns."""
    model = ensure_model()
    ways = {"fast": load(model, invariant=False), "invariant": load(model, invariant=True)}
    found: dict[tuple[str, str, int], list[float]] = {}
    for turn in range(TURNS + 1):
        for rows in (ROWS, 1):
            for name, way in ways.items():
                times = zip(("prefill", "decode step"), run(*way, rows), strict=True)
                for metric, spent in times if turn else ():  # the first is the warm-up
                    found.setdefault((name, metric, rows), []).append(spent)
    measured = [
        row([1e3 * each for each in samples], provider=name, metric=metric, x=rows, unit="ms")
        for (name, metric, rows), samples in found.items()
    ]
    for (name, metric, rows), samples in found.items():
        if name == "invariant":
            fast = found["fast", metric, rows]
            ratios = [slow / quick for slow, quick in zip(samples, fast, strict=True)]
            measured.append(
                row(ratios, provider="invariant / fast", metric=metric, x=rows, unit="1")
            )
    return measured


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    measured = measure()
    show(measured)
    write(QUESTION, measured)

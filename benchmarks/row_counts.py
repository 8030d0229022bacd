"""Measure what memory products take that meet many numbers of rows, and few.

    python -m benchmarks.row_counts    # writes row_counts.csv

SmolLM2-135M, each figure from a process of its own: how much resident memory grows while the
model's products run on 1 to 512 rows, one number after the other, as they come and in the row
counts of block_products.py. Then an engine with the demo's adapters: what it holds beyond weights
and KV cache when it is ready, and after each hundred of jobs of many lengths.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

import psutil
import torch

from aril.schemas import Sampling
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.request import GenerationRequest
from benchmarks.record import Row, keep
from benchmarks.smollm2 import MAX_RANK, demo_adapters, load_smollm2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

QUESTION = "row_counts"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MOST_ROWS = 512
ROWS = 16
KV_TOKENS = 8_192
PARTS = 4
JOBS = 100  # a part
MB = 1e6


def resident() -> float:
    """Return the process's resident memory in MB, once freed memory has been given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return float(psutil.Process().memory_info().rss / MB)


def load(dtype: torch.dtype) -> Engine:
    """Load the engine."""
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=MOST_ROWS,
        slots=4,
        max_rank=MAX_RANK,
        kv_tokens=KV_TOKENS,
        dtype=dtype,
    )
    return Engine(load_smollm2(dtype), config)


def held(engine: Engine) -> float:
    """Return the MB of weights and KV cache; an output module tied to the embedding counts twice.

    It is laid out for speed, and the embedding is rows.
    """
    backbone = engine.backbone
    values = sum(out * width for out, width in backbone.linear_shapes.values())
    values += backbone.model.get_input_embeddings().weight.numel()
    values += sum(2 * KV_TOKENS * each.kv_heads * each.head_dim for each in backbone.layouts)
    return values * backbone.dtype.itemsize / MB


def grow(dtype: torch.dtype, *, few: bool) -> list[float]:
    """Return by how many MB memory grows over all numbers of rows: as it is, and trimmed."""
    engine = load(dtype)
    kinds = {group.kind: group for group in engine.layers.groups}  # others share their kernels
    output = engine.backbone.output_module
    before = resident()
    for group in kinds.values():
        group.row_counts = group.row_counts if few else None
        most = ROWS if group.names == (output,) else MOST_ROWS
        with torch.inference_mode():
            for rows in range(1, most + 1):
                group.compute(torch.zeros(rows, group.in_features, dtype=dtype))  # products alone
    return [psutil.Process().memory_info().rss / MB - before, resident() - before]


def serve(dtype: torch.dtype) -> list[float]:
    """Return the MB beyond weights and KV cache when an engine is ready, and after each part."""
    engine = load(dtype)
    adapters = [None, *demo_adapters(engine.backbone)]
    beyond = [resident() - held(engine)]
    keys = iter(range(JOBS * PARTS))
    for _ in range(PARTS):
        for key in _some(keys):
            length = 1 + 37 * key % 300
            engine.submit(
                GenerationRequest(
                    key=key,
                    prompt_ids=tuple(1_000 + at * 7 % 20_000 for at in range(length)),
                    sampling=Sampling(max_tokens=1 + key % 7, temperature=0.0, ignore_eos=True),
                    seed=0,
                    adapter=adapters[key % len(adapters)],
                )
            )
        while engine.has_work:
            engine.step()
        beyond.append(psutil.Process().memory_info().rss / MB - held(engine))
    return beyond


def _some(keys: Iterator[int]) -> Iterator[int]:
    return (next(keys) for _ in range(JOBS))


WAYS: Mapping[str, Callable[[torch.dtype], list[float]]] = {
    "grow as they come": functools.partial(grow, few=False),
    "grow in row counts": functools.partial(grow, few=True),
    "serve": serve,
}


def measure() -> Iterator[Row]:
    """Run each way in a process of its own."""
    for name, way in ((name, way) for name in DTYPES for way in WAYS):
        command = [sys.executable, "-m", "benchmarks.row_counts", "--way", way, "--dtype", name]
        done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603 - our own code
        sizes = json.loads(done.stdout.splitlines()[-1])
        serves = way == "serve"
        metrics = (
            [(str(JOBS * part), "beyond weights and KV cache") for part in range(PARTS + 1)]
            if serves
            else [(f"1 to {MOST_ROWS}", "growth"), (f"1 to {MOST_ROWS}", "growth, trimmed")]
        )
        for (x, metric), size in zip(metrics, sizes, strict=True):
            yield Row.of(
                [size],
                question=QUESTION,
                provider=f"{name}, {'an engine, by jobs' if serves else way.removeprefix('grow ')}",
                metric=metric,
                x=x,
                unit="MB",
                config=f"SmolLM2-135M, {KV_TOKENS} tokens of KV cache, {ROWS} rows, 3 adapters",
            )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    given = parser.parse_args()
    if given.way is None:
        keep(QUESTION, measure())
    else:
        print(json.dumps(WAYS[given.way](DTYPES[given.dtype])))

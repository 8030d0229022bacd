"""Measure what a worker holds in memory beside the model, and whether that grows with jobs.

    python -m benchmarks.memory [--jobs 10000]    # writes memory.csv

One worker with SmolLM2-135M in the type that a worker takes here by itself, and the demo's
adapters, on a real Kafka. Its resident
memory is read when it is ready and after each tenth of the jobs; weights (an output module that is
tied to the embedding exists twice on a CPU) and KV cache are subtracted. Beside it: what a process
holds that has imported torch and transformers' models and done nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
from safetensors import safe_open

from aril.demo.model import ensure_model
from aril.worker.engine.processor import cpu_dtype
from benchmarks.record import Row
from benchmarks.smollm2 import DEMO
from benchmarks.stack import Stack, keep_measured

if TYPE_CHECKING:
    from pathlib import Path

    from aril import Client

QUESTION = "memory"
ADAPTERS = {"acme": "terse", "blackbeard": "pirate", "ledgerly": "extract", "visitor": None}
PARTITIONS = 4
KV_TOKENS = 8_192
DTYPE = cpu_dtype()
NAMED = str(DTYPE).removeprefix("torch.")
PARTS = 10
AT_ONCE = 256  # jobs that are under way
MB = 1_000_000


def weight_bytes(model: Path) -> int:
    """Return what the backbone's weights take."""
    with safe_open(model / "model.safetensors", framework="pt") as file:
        shapes = [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - no mapping
    config = json.loads((model / "config.json").read_text())
    tied = config["vocab_size"] * config["hidden_size"] if config["tie_word_embeddings"] else 0
    return (tied + sum(map(math.prod, shapes))) * DTYPE.itemsize


def cache_bytes(model: Path) -> int:
    """Return what the KV cache takes."""
    config = json.loads((model / "config.json").read_text())
    head = config["hidden_size"] // config["num_attention_heads"]
    heads = config["num_key_value_heads"]
    return KV_TOKENS * config["num_hidden_layers"] * 2 * heads * head * DTYPE.itemsize


def imports_bytes() -> int:
    """Return what a process holds that has only imported the libraries."""
    code = (
        "import psutil, torch, transformers.modeling_utils;"
        "print(psutil.Process().memory_info().rss)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)  # noqa: S603 - our own code
    return int(done.stdout)


async def serve(clients: list[Client], jobs: int) -> None:
    """Run jobs of all tenants, some hundred at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def ask(number: int) -> None:
        client = clients[number % len(clients)]
        async with room:
            await client.complete(
                f"Question {number}?",
                adapter=ADAPTERS[client.tenant],
                sampling={"max_tokens": 2, "ignore_eos": True},
                timeout=600,
            )

    async with asyncio.TaskGroup() as tasks:
        for number in range(jobs):
            tasks.create_task(ask(number))


def row(provider: str, metric: str, jobs: int, size: int) -> Row:
    """Make one row of the CSV, of a size in bytes."""
    return Row.of(
        [size / MB],
        question=QUESTION,
        provider=provider,
        metric=metric,
        x=jobs,
        unit="MB",
        config=f"SmolLM2-135M {NAMED}, {KV_TOKENS} tokens of KV cache, 16 rows, 3 adapters",
    )


async def measure(bootstrap: str, jobs: int) -> list[Row]:
    """Start the worker, run the jobs, read its memory."""
    model = ensure_model()
    held = weight_bytes(model) + cache_bytes(model)
    imports = await asyncio.to_thread(imports_bytes)
    rows = [row("torch and transformers imported", "resident memory", 0, imports)]
    stack = Stack(
        bootstrap, partitions=PARTITIONS, reply_partitions=PARTITIONS, tenants=list(ADAPTERS)
    )
    async with stack:
        worker = await stack.add_worker(
            "aril", "worker", model=model, adapters=DEMO, kv_tokens=KV_TOKENS, threads=2
        )
        process = psutil.Process(worker.pid)
        async with stack.clients() as clients:
            for part in range(PARTS + 1):
                if part:
                    await serve(clients, jobs // PARTS)
                resident = process.memory_info().rss
                done = part * (jobs // PARTS)
                rows.append(row("worker", "resident memory", done, resident))
                rows.append(row("worker", "beyond weights and KV cache", done, resident - held))
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    keep_measured(QUESTION, functools.partial(measure, jobs=parser.parse_args().jobs))

"""Measure what adapters cost on a CPU, and what PEFT needs for the same answers.

    python -m benchmarks.cpu_engine    # writes cpu_engine.csv

SmolLM2-135M in float32, 16 rows over 4 adapters and the backbone. Ways are run in turns, so that a
machine that changes its speed changes all of them.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from aril.demo.model import ensure_model
from aril.worker.adapters import AdapterStore
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.prompt_pace import UNBOUND
from benchmarks.decoding import decode
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import DEMO, MAX_RANK, NAMED, demo_adapters, load_smollm2
from benchmarks.turns import in_turns, milliseconds
from tests.support.tiny import ALL_LINEARS, make_tiny_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.worker.adapters import AdapterWeights
    from benchmarks.decoding import Decoded

QUESTION = "cpu_engine"
ROWS = 16
PROMPT = 32
TOKENS = 48
TURNS = 5
FOURTH = "rank-32"
WAYS = 5  # four adapters and the backbone, which rows use in turn


def prompt_of(row: int) -> tuple[int, ...]:
    """Return a row's prompt: some tokens of the vocabulary, the same length for all."""
    return tuple(1_000 + (row * PROMPT + index) * 7 % 20_000 for index in range(PROMPT))


def load_ours(fourth: Path) -> tuple[Engine, list[AdapterWeights | None]]:
    """Load the engine, the demo's three adapters, a fourth of rank 32 on all linears; and None."""
    backbone = load_smollm2()
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=512,
        slots=4,
        max_rank=MAX_RANK,
        kv_tokens=4096,
        step_stretch=UNBOUND,  # prompts come in at once, so that all rows decode together
        prefix_cache=False,
    )
    store = AdapterStore(
        fourth, base_model=None, linear_shapes=backbone.linear_shapes, max_rank=MAX_RANK
    )
    adapters = [*demo_adapters(backbone), store.load(store.find("bench", FOURTH)), None]
    return Engine(backbone, config), adapters


def run_ours(engine: Engine, adapters: Sequence[AdapterWeights | None]) -> Decoded:
    """Answer all rows, the adapters in turn."""
    own = [adapters[row % len(adapters)] for row in range(ROWS)]
    return decode(engine, own, [prompt_of(row) for row in range(ROWS)], TOKENS)


def load_peft(fourth: Path) -> Any:
    """Load the same with transformers and PEFT."""
    from peft import PeftModel  # noqa: PLC0415 - slow to import
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - same

    base = AutoModelForCausalLM.from_pretrained(ensure_model(), dtype=torch.float32).eval()
    base.generation_config.pad_token_id = 2
    peft = PeftModel.from_pretrained(base, fourth / "bench" / FOURTH, adapter_name="3")
    for number, (tenant, name) in enumerate(NAMED):
        peft.load_adapter(DEMO / tenant / name, adapter_name=str(number))
    return peft.float()


def run_peft(model: Any, *, mixed: bool) -> float:
    """Answer all rows by ``generate``: one call for each adapter, or one with adapter_names."""
    wanted = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
    prompts = torch.tensor([prompt_of(row) for row in range(ROWS)])
    begun = time.perf_counter()
    with torch.inference_mode():
        if mixed:
            names = [
                str(row % WAYS) if row % WAYS < WAYS - 1 else "__base__" for row in range(ROWS)
            ]
            model.generate(
                input_ids=prompts,
                attention_mask=torch.ones_like(prompts),
                adapter_names=names,
                **wanted,
            )
            return time.perf_counter() - begun
        for way in range(WAYS):
            rows = prompts[way::WAYS]
            inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
            if way < WAYS - 1:
                model.set_adapter(str(way))
                model.generate(**inputs, **wanted)
            else:
                with model.disable_adapter():
                    model.generate(**inputs, **wanted)
    return time.perf_counter() - begun


def bare_linears(engine: Engine) -> Callable[[], None]:
    """Return the backbone's matrix products alone, each linear on 16 rows."""
    shapes = engine.backbone.linear_shapes
    weights = [torch.randn(shape) for shape in shapes.values()]
    inputs = {width: torch.randn(ROWS, width) for _, width in shapes.values()}

    def run() -> None:
        with torch.inference_mode():
            for weight in weights:
                functional.linear(inputs[weight.shape[1]], weight)

    return run


def measure() -> list[Row]:
    """Run all ways in turns."""
    with tempfile.TemporaryDirectory() as scratch:
        fourth = Path(scratch)
        target = fourth / "bench" / FOURTH
        make_tiny_adapter(
            target, ensure_model(), rank=32, alpha=32, targets=ALL_LINEARS, rslora=False, seed=1
        )
        (engine, adapters), peft = load_ours(fourth), load_peft(fourth)
    linears = bare_linears(engine)
    mixed, plain = "ours, 4 adapters + backbone", "ours, backbone only"
    by_adapter, by_names = "PEFT generate, adapter by adapter", "PEFT generate, adapter_names"
    ways: dict[str, Callable[[], Any]] = {
        mixed: functools.partial(run_ours, engine, adapters),
        plain: functools.partial(run_ours, engine, [None]),
        "bare F.linear": lambda: statistics.median_high(milliseconds(linears) for _ in range(10)),
        by_adapter: functools.partial(run_peft, peft, mixed=False),
        by_names: functools.partial(run_peft, peft, mixed=True),
    }
    found = in_turns(ways, TURNS)
    products = found["bare F.linear"]
    wholes = {
        **{name: [run.whole for run in found[name]] for name in (mixed, plain)},
        **{name: found[name] for name in (by_adapter, by_names)},
    }
    steps = {
        name: [1e3 * statistics.median_high(run.steps) for run in found[name]]
        for name in (mixed, plain)
    }
    threads = torch.get_num_threads()
    config = f"SmolLM2-135M float32, {PROMPT} + {TOKENS} tokens, {threads} threads"
    row = functools.partial(Row.of, question=QUESTION, x=ROWS, config=config)
    rows = [
        row([ROWS * TOKENS / each for each in spent], provider=name, metric="tokens/s", unit="1/s")
        for name, spent in wholes.items()
    ]
    for name, samples in steps.items():
        rows.append(row(samples, provider=name, metric="decode step", unit="ms"))
    rows.append(row(products, provider="bare F.linear", metric="all products of a step", unit="ms"))
    for provider, metric, share in (
        ("ours / ours without adapters", "share of tokens/s", (wholes[plain], wholes[mixed])),
        (
            "ours / PEFT adapter by adapter",
            "ratio of tokens/s",
            (wholes[by_adapter], wholes[mixed]),
        ),
        ("ours / PEFT adapter_names", "ratio of tokens/s", (wholes[by_names], wholes[mixed])),
        ("ours / bare F.linear", "ratio of a step, adapters", (steps[mixed], products)),
        ("ours / bare F.linear", "ratio of a step, backbone", (steps[plain], products)),
    ):
        rows.append(row(ratios(*share), provider=provider, metric=metric, unit="1"))
    return rows


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    keep(QUESTION, measure())

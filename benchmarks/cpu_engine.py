"""Measure what adapters cost on a CPU, and what PEFT needs for the same answers.

    python -m benchmarks.cpu_engine

SmolLM2-135M in float32, 16 rows over 4 adapters and the backbone. Ways are run in turns, so that a
machine that changes its speed changes all of them.
"""

from __future__ import annotations

import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from aril.demo.model import MODEL_NAME, ensure_model
from benchmarks.record import Row, show, write
from schemas import Sampling
from tests.support.tiny import ALL_LINEARS, make_tiny_adapter
from worker.adapters import AdapterStore
from worker.engine.config import EngineConfig
from worker.engine.engine import Engine
from worker.engine.model import load_backbone
from worker.engine.request import GenerationRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.adapters import AdapterWeights

QUESTION = "cpu_engine"
ROWS = 16
PROMPT = 32
TOKENS = 48
TURNS = 5
DEMO = Path(__file__).parent.parent / "aril" / "demo" / "adapters"
FOURTH = "rank-32"


@dataclass(frozen=True)
class Ours:
    """Our engine and the adapters its rows use in turn; None is the backbone."""

    engine: Engine
    adapters: Sequence[AdapterWeights | None]

    def run(self, *, with_adapters: bool) -> tuple[float, list[float]]:
        """Answer all rows; return the whole seconds and those of each decode step."""
        for row in range(ROWS):
            self.engine.submit(
                GenerationRequest(
                    key=row,
                    prompt_ids=prompt_of(row),
                    sampling=Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
                    seed=0,
                    adapter=self.adapters[row % len(self.adapters)] if with_adapters else None,
                )
            )
        steps: list[float] = []
        begun = time.perf_counter()
        while self.engine.has_work:
            before = time.perf_counter()
            brought = self.engine.step()
            if len(brought) == ROWS and self.engine.stats().tokens == ROWS:
                steps.append(time.perf_counter() - before)
        return time.perf_counter() - begun, steps


def prompt_of(row: int) -> tuple[int, ...]:
    """Return a row's prompt: some tokens of the vocabulary, the same length for all."""
    return tuple(1_000 + (row * PROMPT + index) * 7 % 20_000 for index in range(PROMPT))


def load_ours(model: Path, fourth: Path) -> Ours:
    """Load the engine, the demo's three adapters and a fourth of rank 32 on all linears."""
    backbone = load_backbone(model, "cpu", torch.float32)
    shapes = backbone.linear_shapes
    config = EngineConfig(max_rows=ROWS, max_step_tokens=512, slots=4, max_rank=32, kv_tokens=4096)
    engine = Engine(backbone, config)
    named = [("acme", "terse"), ("blackbeard", "pirate"), ("ledgerly", "extract")]
    demo = AdapterStore(DEMO, base_model=MODEL_NAME, linear_shapes=shapes, max_rank=32)
    other = AdapterStore(fourth, base_model=None, linear_shapes=shapes, max_rank=32)
    weights: list[AdapterWeights | None] = [demo.load(demo.find(*each)) for each in named]
    return Ours(engine, [*weights, other.load(other.find("bench", FOURTH)), None])


def load_peft(model: Path, fourth: Path) -> Any:
    """Load the same with transformers and PEFT."""
    from peft import PeftModel  # noqa: PLC0415 - slow to import
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - same

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    base.generation_config.pad_token_id = 2
    peft = PeftModel.from_pretrained(base, DEMO / "acme" / "terse", adapter_name="0")
    peft.load_adapter(DEMO / "blackbeard" / "pirate", adapter_name="1")
    peft.load_adapter(DEMO / "ledgerly" / "extract", adapter_name="2")
    peft.load_adapter(fourth / "bench" / FOURTH, adapter_name="3")
    return peft.float()


def run_peft(model: Any, *, mixed: bool) -> float:
    """Answer all rows by ``generate``: one call for each adapter, or one with adapter_names."""
    wanted = {"max_new_tokens": TOKENS, "min_new_tokens": TOKENS, "do_sample": False}
    prompts = torch.tensor([prompt_of(row) for row in range(ROWS)])
    ways = 5
    begun = time.perf_counter()
    with torch.inference_mode():
        if mixed:
            names = [
                str(row % ways) if row % ways < ways - 1 else "__base__" for row in range(ROWS)
            ]
            model.generate(
                input_ids=prompts,
                attention_mask=torch.ones_like(prompts),
                adapter_names=names,
                **wanted,
            )
            return time.perf_counter() - begun
        for way in range(ways):
            rows = prompts[way::ways]
            inputs = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
            if way < ways - 1:
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


def seconds(work: Callable[[], None]) -> float:
    """Time one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def median(samples: Sequence[float]) -> float:
    """Return the middle one."""
    return sorted(samples)[len(samples) // 2]


def measure() -> list[Row]:
    """Run all ways in turns."""
    model = ensure_model()
    with tempfile.TemporaryDirectory() as scratch:
        fourth = Path(scratch)
        target = fourth / "bench" / FOURTH
        make_tiny_adapter(
            target, model, rank=32, alpha=32, targets=ALL_LINEARS, rslora=False, seed=1
        )
        ours, peft = load_ours(model, fourth), load_peft(model, fourth)
    linears = bare_linears(ours.engine)
    ours.run(with_adapters=True)  # warm-up
    linears()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for _ in range(TURNS):
        whole, mixed = ours.run(with_adapters=True)
        plain, bare = ours.run(with_adapters=False)
        products = median([seconds(linears) for _ in range(10)])
        by_adapter, by_names = run_peft(peft, mixed=False), run_peft(peft, mixed=True)
        tokens = ROWS * TOKENS
        note("ours, 4 adapters + backbone|tokens/s|1/s", tokens / whole)
        note("ours, backbone only|tokens/s|1/s", tokens / plain)
        note("PEFT generate, adapter by adapter|tokens/s|1/s", tokens / by_adapter)
        note("PEFT generate, adapter_names|tokens/s|1/s", tokens / by_names)
        note("ours, 4 adapters + backbone|decode step|ms", median(mixed) * 1e3)
        note("ours, backbone only|decode step|ms", median(bare) * 1e3)
        note("bare F.linear|all products of a step|ms", products * 1e3)
        note("ours / ours without adapters|share of tokens/s|1", plain / whole)
        note("ours / PEFT adapter by adapter|ratio of tokens/s|1", by_adapter / whole)
        note("ours / PEFT adapter_names|ratio of tokens/s|1", by_names / whole)
        note("ours / bare F.linear|ratio of a step, adapters|1", median(mixed) / products)
        note("ours / bare F.linear|ratio of a step, backbone|1", median(bare) / products)
    threads = torch.get_num_threads()
    config = f"SmolLM2-135M float32, {PROMPT} + {TOKENS} tokens, {threads} threads"
    rows = []
    for name, samples in found.items():
        provider, metric, unit = name.split("|")
        rows.append(
            Row.of(
                samples,
                question=QUESTION,
                provider=provider,
                metric=metric,
                x=ROWS,
                unit=unit,
                config=config,
            )
        )
    return rows


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    measured = measure()
    show(measured)
    write(QUESTION, measured)

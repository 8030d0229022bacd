"""The engine's table: what adapters cost a decode step of a whole model.

    python -m benchmarks.gpu --only engine    # writes engine_gpu.csv

A backbone of an 8B model's shape with random weights, 32 rows of one token each, and adapters on
all seven linears of a layer. Steps are timed by the host's clock, tokens on the host included: what
a worker sees, eagerly and with decode steps captured, by our kernels between a layer's products and
by torch's, and with each step launched while the one before runs. Batches take turns, so that a
drift of the clock meets all alike.
"""

from __future__ import annotations

import gc
import statistics
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aril.worker.adapters import AdapterWeights, LoraModule
from aril.worker.engine import attention, probe
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import adopt_backbone
from benchmarks.decoding import decode
from benchmarks.record import ratios
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aril.worker.engine.model import Backbone
    from benchmarks.gpu.results import Results

QUESTION = "engine_gpu"
BACKBONE_ONLY = "backbone only"
ONE_AT_A_TIME = "Distinct, one adapter at a time"
OURS, TORCHS = "one function a layer", "torch between products"
WARM_UP = 3


@dataclass(frozen=True)
class Size:
    """How large the model and its batches are."""

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    rows: int
    rank: int
    prompt: int
    steps: int  # that are timed, in each turn

    def config(self) -> LlamaConfig:
        """Return the model's configuration."""
        return LlamaConfig(
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=8192,
            rope_theta=500_000.0,
            tie_word_embeddings=False,
        )


LLAMA_8B = Size("8B", 4096, 14336, 32, 32, 8, 128_256, rows=32, rank=16, prompt=128, steps=24)
TINY = Size("tiny", 64, 96, 1, 4, 2, 384, rows=2, rank=4, prompt=3, steps=1)


def random_backbone(size: Size, device: str, dtype: torch.dtype) -> Backbone:
    """Make a model of this size where it is to run, with random weights and a small tokenizer."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = LlamaForCausalLM(size.config())
    finally:
        torch.set_default_dtype(before)
    return adopt_backbone(model, make_tokenizer(), device, name=size.name)


def random_adapter(backbone: Backbone, rank: int, seed: int) -> AdapterWeights:
    """Draw an adapter of all linears but the one that makes the logits."""
    generator = torch.Generator(backbone.device).manual_seed(seed)

    def draw(rows: int, columns: int) -> torch.Tensor:
        drawn = torch.randn(rows, columns, generator=generator, device=backbone.device)
        return (drawn * columns**-0.5).to(backbone.dtype)

    modules = {
        path: LoraModule(rank, 1.0, draw(rank, width_in), draw(width_out, rank))
        for path, (width_out, width_in) in backbone.linear_shapes.items()
        if path != backbone.output_module
    }
    return AdapterWeights(f"adapter-{seed}", f"{seed:064x}", rank, modules)


class Bench:
    """One engine, and the batches that it decodes."""

    def __init__(
        self, size: Size, device: str, dtype: torch.dtype, *, graphs: bool, ahead: bool
    ) -> None:
        self.size = size
        backbone = random_backbone(size, device, dtype)
        self.adapters = [random_adapter(backbone, size.rank, seed) for seed in range(size.rows)]
        room = size.prompt + WARM_UP + size.steps + 2
        self.engine = Engine(
            backbone,
            EngineConfig(
                max_rows=size.rows,
                max_step_tokens=max(size.rows * size.prompt, size.rows),
                slots=size.rows,
                max_rank=size.rank,
                kv_tokens=size.rows * (room + 16),
                prefix_cache=False,  # every run has the same prompts
                device=device,
                dtype=dtype,
                backend="triton",
                graphs="on" if graphs and device != "cpu" else "off",
                run_ahead="on" if ahead else "off",
            ),
            record=run_again if graphs and device == "cpu" else None,
        )

    def batches(self) -> dict[str, Sequence[AdapterWeights | None]]:
        """Which adapter each row has."""
        rows, adapters = self.size.rows, self.adapters
        return {
            BACKBONE_ONLY: [None] * rows,
            "Identical": adapters[:1] * rows,
            "half backbone, half distinct": [*adapters[: rows // 2], *[None] * (rows - rows // 2)],
            "Distinct": adapters,
            ONE_AT_A_TIME: adapters[:1],
        }

    def decode(self, adapters: Sequence[AdapterWeights | None]) -> list[float]:
        """Prefill a row for each adapter, then time decode steps: seconds of each."""
        size = self.size
        prompts = [
            tuple((97 * key + 31 * at) % size.vocabulary for at in range(size.prompt))
            for key in range(len(adapters))
        ]
        found = decode(self.engine, adapters, prompts, WARM_UP + size.steps + 1)
        return found.steps[WARM_UP:]


def run_again(step: Callable[[], None]) -> Callable[[], None]:
    """Stand in for a capture where there is no GPU."""
    step()
    return step


def measure(results: Results, *, turns: int) -> None:
    """Measure an engine that runs eagerly, then one that replays its decode steps, by both ways.

    And one that replays, by our way, and launches each step while the one before runs.
    """
    for layers, graphs, ahead in (
        (OURS, False, False),
        (OURS, True, False),
        (OURS, True, True),
        (TORCHS, False, False),
        (TORCHS, True, False),
    ):
        with torch_between_products() if layers == TORCHS else nullcontext():
            measure_engine(results, turns=turns, graphs=graphs, ahead=ahead, layers=layers)
        if results.device.type == "cuda":
            gc.collect()  # an engine refers to itself, and the next one needs its room
            torch.cuda.empty_cache()


@contextmanager
def torch_between_products() -> Iterator[None]:
    """Run layers as transformers has them: norms, rotations and gates by operators of torch."""
    with (
        patch.object(attention, "fused_kernels", return_value=None),
        patch.object(probe, "lead_layers", return_value=[]),
    ):
        yield


def measure_engine(results: Results, *, turns: int, graphs: bool, ahead: bool, layers: str) -> None:
    """Decode each batch in turns and keep steps, tokens a second, and their ratios."""
    on_gpu = results.device.type == "cuda"
    size = LLAMA_8B if on_gpu else TINY
    dtype = torch.bfloat16 if on_gpu else torch.float32
    way = ("CUDA graphs" if graphs else "eager") + (", a step ahead" if ahead else "")
    config = f"{size.name}, random weights; rank {size.rank}; {dtype}; prompt {size.prompt}"
    config += f"; {way}; {layers}"
    print(f"\n{config}; {size.rows} rows")
    bench = Bench(size, str(results.device), dtype, graphs=graphs, ahead=ahead)
    batches = bench.batches()
    for adapters in batches.values():
        bench.decode(adapters)  # compiles, and loads the slots
    seconds: dict[str, list[list[float]]] = {name: [] for name in batches}
    for _ in range(turns):
        for name, adapters in batches.items():
            seconds[name].append(bench.decode(adapters))
    rates = {
        name: [len(batches[name]) / statistics.median(turn) for turn in taken]
        for name, taken in seconds.items()
    }
    for name, taken in seconds.items():
        rows = len(batches[name])
        steps = [1e3 * step for turn in taken for step in turn]
        results.add(QUESTION, name, "decode step", rows, steps, unit="ms", config=config)
        results.add(QUESTION, name, "tokens", rows, rates[name], unit="1/s", config=config)
        for other, metric in (
            (BACKBONE_ONLY, "share of the backbone's tokens/s"),
            (ONE_AT_A_TIME, "times one adapter at a time"),
        ):
            share = ratios(rates[name], rates[other])
            results.add(QUESTION, name, metric, rows, share, unit="1", config=config)
        print(
            f"  {name:32} {statistics.median(steps):9.2f} ms a step, "
            f"{statistics.median(rates[name]):9.0f} tokens/s"
        )
    results.write()

"""What a decode step takes on a CPU beside its products: layers as one program, and as modules.

    python -m benchmarks.decode_step    # writes decode_step.csv

SmolLM2-135M's shape with random weights, 16 rows over 4 adapters and the backbone or over the
backbone alone, on all cores. Beside both ways the bare products: those that the step makes, and
oneDNN's. Steps take turns, so all ways see one context.
"""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, Any

import torch

from aril.schemas import Sampling
from aril.worker.adapters import AdapterWeights, LoraModule
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.layer_forward import layer_forward
from aril.worker.engine.model import adopt_backbone
from aril.worker.engine.packed_weight import PackedWeight
from aril.worker.engine.prompt_pace import UNBOUND
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.tiled_weight import TiledWeight, can_tile
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import random_smollm2
from benchmarks.turns import in_turns, milliseconds
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

    from aril.worker.engine.config import Weights

QUESTION = "decode_step"
ROWS, REPETITIONS = 16, 21
RANKS = (16, 16, 16, 32)
CONTEXTS = (32, 512)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
OURS, MODULES = "one program", "modules"
PRODUCTS, ONEDNN = "bare products", "bare products, oneDNN"


def load(
    dtype: torch.dtype, context: int, *, adapters: bool, weights: Weights = "stored"
) -> Engine:
    """Make an engine and run its rows' prompts, so that the next steps only decode."""
    model = random_smollm2().to(dtype)
    backbone = adopt_backbone(model, make_tokenizer(384), "cpu", name="shape of SmolLM2-135M")
    longest = context + 4 * REPETITIONS
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=512,
        slots=len(RANKS),
        max_rank=max(RANKS),
        kv_tokens=ROWS * (longest + 16),
        prefix_cache=False,
        step_stretch=UNBOUND,  # or the first rows would be done before the last ones begin
        dtype=dtype,
        weights=weights,
    )
    engine = Engine(backbone, config)
    own = [adapter(engine, number) for number in range(len(RANKS))]
    ways: list[AdapterWeights | None] = [*own, None] if adapters else [None]
    for key in range(ROWS):
        prompt = tuple(1_000 + (key * context + at) * 7 % 20_000 for at in range(context))
        how = Sampling(max_tokens=4 * REPETITIONS, temperature=0.0, ignore_eos=True)
        engine.submit(
            GenerationRequest(
                key=key, prompt_ids=prompt, sampling=how, seed=0, adapter=ways[key % len(ways)]
            )
        )
    while len(engine.step()) < ROWS:
        pass
    return engine


def adapter(engine: Engine, number: int) -> AdapterWeights:
    """Make a random adapter of every linear but the output's."""
    rank, modules = RANKS[number], {}
    for name, (out, width) in engine.layers.shapes.items():
        if name != engine.backbone.output_module:
            a, b = torch.randn(rank, width) / width**0.5, torch.randn(out, rank) / 50
            modules[name] = LoraModule(rank=rank, scaling=0.5, a=a, b=b)
    return AdapterWeights(name=str(number), digest=f"{number:064x}", rank=rank, modules=modules)


def ways_of(engine: Engine) -> dict[str, Callable[[], float]]:
    """Return a step by each way, and all its products alone, in milliseconds."""
    layers: Any = engine.backbone.model.model.layers
    dtype = engine.backbone.dtype
    weights = [torch.randn(group.weight.shape, dtype=dtype) for group in engine.layers.groups]
    kind = TiledWeight if all(can_tile(each, "auto") for each in weights) else PackedWeight
    own = [(kind(each, None), each.shape[1]) for each in weights]
    theirs = [(PackedWeight(each, None), each.shape[1]) for each in weights]
    inputs = {width: torch.randn(ROWS, width).to(dtype) for _, width in own}

    def step(forward: Callable[..., Any]) -> float:
        for layer in layers:
            layer.forward = MethodType(forward, layer)
        return milliseconds(engine.step)

    @torch.inference_mode()
    def multiply(products: Sequence[tuple[Callable[[Tensor], Tensor], int]]) -> None:
        for product, width in products:
            product(inputs[width])

    return {
        OURS: lambda: step(layer_forward),
        MODULES: lambda: step(type(layers[0]).forward),
        PRODUCTS: lambda: milliseconds(lambda: multiply(own)),
        ONEDNN: lambda: milliseconds(lambda: multiply(theirs)),
    }


def measure() -> Iterator[Row]:
    """Time each case, and say what of its products a step takes."""
    for context in CONTEXTS:
        for name, dtype in DTYPES.items():
            for adapters in (True, False):
                taken = in_turns(ways_of(load(dtype, context, adapters=adapters)), REPETITIONS)
                config = f"SmolLM2-135M's shape, {name}, {ROWS} rows, "
                config += "4 adapters and the backbone" if adapters else "the backbone"
                for way, times in taken.items():
                    for metric, unit, samples in (
                        ("time", "ms", times),
                        ("time, of bare products", "1", ratios(times, taken[PRODUCTS])),
                    ):
                        yield Row.of(
                            samples,
                            question=QUESTION,
                            provider=way,
                            metric=metric,
                            x=f"{context} tokens",
                            unit=unit,
                            config=f"{config}, {torch.get_num_threads()} threads",
                        )


if __name__ == "__main__":
    keep(QUESTION, measure())

"""The engine on the device, through Triton: the tokens that the CPU's own path gives.

Without a GPU in the interpreter, with less of everything. Needs pytest, transformers and what the
wire contract needs, no more.
"""

from __future__ import annotations

import copy
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cpu":
    os.environ.setdefault("TRITON_INTERPRET", "1")

from aril.schemas import Sampling  # noqa: E402
from aril.worker.engine.config import EngineConfig  # noqa: E402
from aril.worker.engine.engine import Engine  # noqa: E402
from aril.worker.engine.model import adopt_backbone  # noqa: E402
from aril.worker.engine.request import GenerationRequest  # noqa: E402
from benchmarks.gpu.engine import TINY, random_adapter, random_backbone  # noqa: E402
from tests.support.tiny import make_tokenizer  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.model import Backbone
ON_GPU = DEVICE == "cuda"
SIZE = replace(TINY, layers=3, rows=24, prompt=33) if ON_GPU else replace(TINY, rows=3)
TOKENS = 40 if ON_GPU else 3


def answers(
    backbone: Backbone, adapters: Sequence[AdapterWeights | None], backend: str
) -> list[tuple[int, ...]]:
    """Decode a row for each adapter, all in one batch: their tokens."""
    device = backbone.device.type
    config = EngineConfig(
        max_rows=len(adapters),
        max_step_tokens=2 * len(adapters) + 3,  # so that prompts are taken in chunks
        slots=len(adapters),
        max_rank=8,
        kv_tokens=len(adapters) * (SIZE.prompt + TOKENS + 16),
        device=device,
        backend=backend,  # type: ignore[arg-type]
    )
    engine = Engine(backbone, config)
    for key, adapter in enumerate(adapters):
        engine.submit(
            GenerationRequest(
                key=key,
                prompt_ids=tuple((97 * key + 31 * at) % SIZE.vocabulary for at in range(1 + key)),
                sampling=Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True),
                seed=0,
                adapter=adapter,
            )
        )
    tokens: dict[int, tuple[int, ...]] = dict.fromkeys(range(len(adapters)), ())
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            tokens[output.key] += output.ids
    return [tokens[key] for key in range(len(adapters))]


def test_the_device_gives_the_cpus_tokens() -> None:
    """Backbone, LoRA of two ranks and DoRA in one batch, prompts in chunks beside decodes."""
    torch.manual_seed(0)
    backbone = random_backbone(SIZE, "cpu", torch.float32)
    plain, small = random_adapter(backbone, 8, 1), random_adapter(backbone, 3, 2)
    dora = replace(
        small,
        name="dora",
        digest="d" * 64,
        modules={
            path: replace(module, magnitude=torch.rand(len(module.b)) + 0.5)
            for path, module in small.modules.items()
        },
    )
    kinds = (plain, None, dora, small)
    adapters = [kinds[row % len(kinds)] for row in range(SIZE.rows)]
    there = adopt_backbone(
        copy.deepcopy(backbone.model), make_tokenizer(), DEVICE, name="on the device"
    )
    expected = answers(backbone, adapters, "torch")
    assert answers(there, adapters, "triton") == expected
    assert all(len(tokens) == TOKENS for tokens in expected)
    assert len(set(expected)) > 1

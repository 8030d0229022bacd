"""Aril's engine in this process.

    python aril_engine.py MODEL ADAPTERS float32|bfloat16|auto

Which checkout of Aril: the one that is imported.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import wire

from aril.schemas import Sampling
from aril.worker.adapters import AdapterStore
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest

ROWS, STEP_TOKENS, KV_TOKENS, RANK = 48, 512, 32_768, 16


def main(model: str, adapters: str, dtype: str) -> None:
    """Load everything, then serve."""
    if dtype == "auto":
        from aril.worker.engine.processor import cpu_dtype  # noqa: PLC0415 - older builds have none

        kind = cpu_dtype()
    else:
        kind = getattr(torch, dtype)
    backbone = load_backbone(model, "cpu", kind)
    shapes = backbone.linear_shapes
    config = EngineConfig(
        max_rows=ROWS,
        max_step_tokens=STEP_TOKENS,
        slots=4,
        max_rank=RANK,
        kv_tokens=KV_TOKENS,
        dtype=kind,
    )
    engine = Engine(backbone, config)
    store = AdapterStore(Path(adapters), base_model=None, linear_shapes=shapes, max_rank=RANK)

    def answer(requests: list[wire.Request]) -> wire.Answers:
        loaded = {
            name: store.load(store.find(*name.split("/")))
            for name in {asked["adapter"] for asked in requests} - {None}
        }
        answers = wire.Answers(requests)
        for row, asked in enumerate(requests):
            sampling = Sampling(max_tokens=asked["new"], temperature=0.0, ignore_eos=True)
            engine.submit(
                GenerationRequest(
                    key=row,
                    prompt_ids=tuple(asked["prompt"]),
                    sampling=sampling,
                    seed=0,
                    adapter=loaded.get(asked["adapter"]),
                )
            )
        while engine.has_work:
            for output in engine.step():
                answers.add(output.key, list(output.ids))
        return answers

    wire.serve(f"torch {torch.__version__}, {kind}", answer)


main(*sys.argv[1:])

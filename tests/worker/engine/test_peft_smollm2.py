"""The demo's real adapters on SmolLM2-135M, fp32: one mixed batch against PEFT's own answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

import aril.demo
from aril.demo.model import ensure_model
from aril.worker.adapters import AdapterStore
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from tests.support.peft_reference import Comparison, EngineRuns, Reference

if TYPE_CHECKING:
    from aril.worker.adapters import AdapterWeights

STORE = Path(aril.demo.__file__).parent / "adapters"
MAX_RANK = 64
TOKENS = 8
QUESTION = "How do I reset my password?"
LETTER = (
    "Dear all, please find attached invoice 4711 of Harbour Supplies Ltd., dated 3 March, over "
    "1,280.50 euros, payable within thirty days. It covers two pallets of paper and the transport "
    "to Bremen, as agreed with Ms Vogel on the telephone. The last invoice is still open."
)


@pytest.mark.slow
def test_real_adapters_give_pefts_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three trained adapters and the backbone, a short and a longer prompt, all in one batch."""
    model = ensure_model()
    folders = {folder.name: folder for folder in sorted(STORE.glob("*/*")) if folder.is_dir()}
    assert len(folders) >= 3
    reference = Reference(model, folders)
    backbone = load_backbone(model, "cpu", torch.float32)
    store = AdapterStore(
        STORE,
        base_model=backbone.name,
        linear_shapes=backbone.linear_shapes,
        max_rank=MAX_RANK,
    )
    adapters: dict[str | None, AdapterWeights | None] = {None: None}
    adapters |= {
        name: store.load(store.find(folder.parent.name, name)) for name, folder in folders.items()
    }
    config = EngineConfig(
        max_rows=16, max_step_tokens=128, slots=len(folders), max_rank=MAX_RANK, kv_tokens=4096
    )
    runs = EngineRuns.recording(Engine(backbone, config), monkeypatch)
    prompts = [
        backbone.tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=False
        )
        for text in (QUESTION, LETTER)
    ]
    jobs = [(prompt, name) for prompt in prompts for name in adapters]
    found = runs.generate([(prompt, adapters[name]) for prompt, name in jobs], TOKENS)
    comparison = Comparison()
    for (prompt, name), ours in zip(jobs, found, strict=True):
        label = f"{name or 'backbone'}, prompt of {len(prompt)}"
        comparison.check(label, ours, reference.generate(prompt, name, TOKENS))
    print(f"{comparison.steps} steps equal; near ties: {comparison.near_ties}")
    assert comparison.steps >= 0.9 * len(jobs) * TOKENS
    assert len({tuple(run.ids) for run in found}) == len(jobs)  # each voice is its own

"""What is compiled at a worker's start: all that jobs of any kind may call afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from aril.kernels.native import compile_kernels
from aril.kernels.native.kernel import Kernel
from aril.schemas import Sampling
from aril.worker.adapters import AdapterStore
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.tiny import make_tiny_adapter, make_tiny_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_job_waits_for_machine_code(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long prompts, few tokens, an adapter: none of it is compiled when it comes."""
    model = make_tiny_model(tmp_path / "model")
    make_tiny_adapter(tmp_path / "store" / "acme" / "one", model)
    backbone = load_backbone(model, "cpu", dtype)
    config = EngineConfig(
        max_rows=4, max_step_tokens=64, slots=2, max_rank=32, kv_tokens=512, dtype=dtype
    )
    shapes = backbone.linear_shapes
    store = AdapterStore(tmp_path / "store", base_model=None, linear_shapes=shapes, max_rank=32)
    adapter = store.load(store.find("acme", "one"))
    compile_kernels(dtype)

    def compiled(_kernel: Kernel, kind: torch.dtype) -> None:
        raise AssertionError(f"compiled for {kind} after the start")

    monkeypatch.setattr(Kernel, "_compile", compiled)
    engine = Engine(backbone, config)
    for key, (length, own) in enumerate([(50, adapter), (3, adapter), (50, None), (3, None)]):
        prompt = tuple(range(5, 5 + length))
        sampling = Sampling(max_tokens=3, temperature=0.0, ignore_eos=True)
        engine.submit(
            GenerationRequest(key=key, prompt_ids=prompt, sampling=sampling, seed=0, adapter=own)
        )
    finished = 0
    while engine.has_work:
        finished += sum(output.finish == "length" for output in engine.step())
    assert finished == 4

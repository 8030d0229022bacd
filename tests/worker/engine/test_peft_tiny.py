"""Greedy answers of tiny models against PEFT's own, adapter by adapter and all in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from aril.worker.adapters import AdapterStore, AdapterWeights
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from tests.support.peft_reference import Comparison, EngineRuns, Reference
from tests.support.tiny import (
    ALL_LINEARS,
    ATTENTION,
    Architecture,
    make_tiny_adapter,
    make_tiny_model,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aril.worker.engine.config import Backend

TENANT = "acme"
TOKENS = 12
SHORT, LONG = tuple(range(5, 9)), tuple((17 * at + 3) % 384 for at in range(150))

# rank, alpha, targets, rsLoRA: different ranks, scalings and modules, one of them a power of no two
GPT2_LINEARS = ("c_attn", "c_proj", "c_fc")
ADAPTERS = {
    "attention": (8, 16, ATTENTION, False),
    "all-linears": (16, 8, ALL_LINEARS, False),
    "rank-stabilised": (5, 4, ALL_LINEARS, True),
    "query-value": (32, 32, ("q_proj", "v_proj"), False),
    "down-only": (4, 8, ("down_proj",), False),
    "dora-all-linears": (8, 16, ALL_LINEARS, False),
    "dora-attention": (5, 4, ATTENTION, True),
    "dora-query-up": (32, 32, ("q_proj", "up_proj"), False),
    "gpt2-all": (8, 16, GPT2_LINEARS, False),
    "gpt2-attention": (4, 8, ("c_attn",), True),
    "dora-gpt2": (5, 4, GPT2_LINEARS, False),
}
PLAIN = [name for name in ADAPTERS if not name.startswith("dora") and "gpt2" not in name]
GPT2 = ["gpt2-all", "gpt2-attention", "dora-gpt2"]
# What the file keeps the lengths of DoRA's rows in.
MAGNITUDES = {
    "dora-all-linears": torch.float32,
    "dora-attention": torch.bfloat16,
    "dora-query-up": torch.float16,
    "dora-gpt2": torch.float32,
}


LLAMA_DORA = [name for name in MAGNITUDES if name not in GPT2]


class Case:
    """One model with its adapters, in an engine and in PEFT."""

    def __init__(
        self, folder: Path, arch: Architecture, names: Sequence[str], backend: Backend
    ) -> None:
        model = make_tiny_model(folder / "model", arch)
        paths = {}
        for seed, name in enumerate(names):
            rank, alpha, targets, rslora = ADAPTERS[name]
            paths[name] = make_tiny_adapter(
                folder / "adapters" / TENANT / name,
                model,
                rank,
                alpha,
                targets,
                rslora,
                seed,
                use_dora=name in MAGNITUDES,
                fan_in_fan_out=arch == "gpt2",
            )
            if name in MAGNITUDES:
                store_magnitudes_in(paths[name], MAGNITUDES[name])
        self.reference = Reference(model, paths)
        backbone = load_backbone(model, "cpu", torch.float32)
        self.engine = Engine(
            backbone,
            EngineConfig(
                max_rows=16,
                max_step_tokens=64,  # less than the long prompts: they go in chunks, among decodes
                slots=len(names),
                max_rank=32,
                kv_tokens=16 * 176,
                backend=backend,
            ),
        )
        store = AdapterStore(
            folder / "adapters",
            base_model=None,
            linear_shapes=backbone.linear_shapes,
            max_rank=32,
        )
        self.adapters: dict[str | None, AdapterWeights | None] = {
            name: store.load(store.find(TENANT, name)) for name in names
        }
        self.adapters[None] = None


def store_magnitudes_in(folder: Path, dtype: torch.dtype) -> None:
    """Write an adapter's magnitudes in another type; A and B stay as they are."""
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    magnitudes = {name: tensor.to(dtype) for name, tensor in tensors.items() if "magnitude" in name}
    assert magnitudes
    save_file(tensors | magnitudes, file)


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("llama", PLAIN),
        ("qwen3", PLAIN),
        ("gemma", PLAIN),
        ("llama", [*LLAMA_DORA, "all-linears"]),
        ("qwen2", [*LLAMA_DORA, "attention", "all-linears"]),
        ("gemma", [*LLAMA_DORA, "query-value"]),
        ("gpt2", GPT2),
        ("gemma2", ["attention", "all-linears"]),
        ("gpt_oss", ["attention", "query-value"]),
    ],
    ids=[
        *("llama", "qwen3", "gemma", "llama-dora", "qwen2-dora", "gemma-dora", "gpt2"),
        *("gemma2", "gpt_oss"),
    ],
)
def test_answers_equal_pefts(
    arch: Architecture, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each adapter and the backbone, short and long prompts: alone and all mixed, PEFT's tokens.

    LoRA and DoRA in one batch, with and without biases, and of weights that lie as [in, out].
    """
    case = Case(tmp_path, arch, names, "torch")
    runs = EngineRuns.recording(case.engine, monkeypatch)
    jobs = [(prompt, name) for prompt in (SHORT, LONG) for name in case.adapters]
    expected = [case.reference.generate(prompt, name, TOKENS) for prompt, name in jobs]
    together = runs.generate([(prompt, case.adapters[name]) for prompt, name in jobs], TOKENS)
    comparison = Comparison()
    for (prompt, name), mixed, theirs in zip(jobs, together, expected, strict=True):
        label = f"{arch}, {name}, prompt of {len(prompt)}"
        comparison.check(f"{label}, mixed", mixed, theirs)
        (alone,) = runs.generate([(prompt, case.adapters[name])], TOKENS)
        comparison.check(f"{label}, alone", alone, theirs)
    print(f"{comparison.steps} steps equal; near ties: {comparison.near_ties}")
    assert comparison.steps >= 0.9 * 2 * len(jobs) * TOKENS
    # An adapter that did nothing would pass as well: each must change the backbone's answer.
    answers = {job: run.ids for job, run in zip(jobs, expected, strict=True)}
    assert all(answers[prompt, name] != answers[prompt, None] for prompt, name in jobs if name)


@pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim > 0:DeprecationWarning"
)  # triton's interpreter
def test_triton_kernels_give_pefts_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The path that a GPU takes, run by the interpreter, on a short mixed batch."""
    case = Case(tmp_path, "qwen2", ["all-linears", "dora-attention", "query-value"], "triton")
    runs = EngineRuns.recording(case.engine, monkeypatch)
    jobs = [
        (SHORT, "all-linears"),
        (SHORT[:3], "dora-attention"),
        (SHORT[:1], "query-value"),
        (SHORT[:2], None),
    ]
    found = runs.generate([(prompt, case.adapters[name]) for prompt, name in jobs], 2)
    comparison = Comparison()
    for (prompt, name), ours in zip(jobs, found, strict=True):
        comparison.check(str(name), ours, case.reference.generate(prompt, name, 2))
    assert comparison.steps == 2 * len(jobs), comparison.near_ties

"""Norms, gates and rotations led to native kernels: which, and none wrongly."""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers.models.llama import modeling_llama

from aril.kernels.fused import native
from aril.schemas import Sampling
from aril.worker.engine import probe
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.probe import plain_logits, probe_packed_rows
from aril.worker.engine.request import GenerationRequest
from tests.support.device import DEVICE
from tests.support.engine_runs import finish
from tests.support.launches import LaunchCounter
from tests.support.tiny import make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aril.worker.engine.config import Backend
    from tests.support.tiny import Architecture

KERNELS = ("rms_norm", "gate", "rotate")


STEPS, LAYERS = 12, 2


def answer(
    path: Path, calls: Counter[str], backend: Backend, dtype: torch.dtype = torch.float32
) -> tuple[int, ...]:
    """Answer one greedy request; only its own steps' calls are counted."""
    config = EngineConfig(
        max_rows=2,
        max_step_tokens=32,
        slots=2,
        max_rank=4,
        kv_tokens=64,
        backend=backend,
        dtype=dtype,
    )
    engine = Engine(load_backbone(path, "cpu", dtype), config)
    how = Sampling(max_tokens=STEPS, temperature=0.0, ignore_eos=True)
    request = GenerationRequest(
        key=0, prompt_ids=(5, 6, 7, 8, 9), sampling=how, seed=0, adapter=None
    )
    calls.clear()
    return tuple(token for output in finish(engine, request)[0] for token in output.ids)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the calls of each kernel."""
    counted: Counter[str] = Counter()

    def counting(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **more: Any) -> Any:
            counted[name] += 1
            return own(*args, **more)

        return count

    for name in KERNELS:
        monkeypatch.setattr(native, name, counting(name, getattr(native, name)))
    return counted


@pytest.mark.parametrize(
    ("arch", "norms", "gates", "rotations"),
    [
        ("llama", 2, 1, 1),
        ("qwen2", 2, 1, 1),
        ("qwen3", 4, 1, 1),  # its heads have norms too
        ("gemma", 6, 1, 1),  # its norms multiply by 1 + weight
        ("gemma2", 4, 1, 1),
        ("gpt_oss", 2, 0, 0),  # experts; angles of half the heads' size
        ("mixtral", 2, 0, 1),  # experts
        ("gpt2", 0, 0, 0),  # none of all three
    ],
)
def test_what_is_led(
    arch: Architecture,
    norms: int,
    gates: int,
    rotations: int,
    tmp_path: Path,
    calls: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each kernel's calls a layer, where it is not led whole; greedy answers as without them."""
    monkeypatch.setattr(probe, "lead_layers", lambda *_: [])
    path = make_tiny_model(tmp_path, arch)
    plain = answer(path, calls, "torch")
    assert not calls
    assert answer(path, calls, "native") == plain
    last = 1 if norms else 0  # before the logits
    assert calls["rms_norm"] == STEPS * (LAYERS * norms + last)
    assert (calls["gate"], calls["rotate"]) == (STEPS * LAYERS * gates, STEPS * LAYERS * rotations)


def test_a_device_runs_what_was_led(tmp_path: Path) -> None:
    """By Triton, in layers of another shape than Llama's: the model's own logits."""
    backbone = load_backbone(make_tiny_model(tmp_path, "gemma2"), str(DEVICE), torch.float32)
    expected = plain_logits(backbone)
    with LaunchCounter() as counter:
        probe_packed_rows(backbone, expected, "triton")
    steps, both = 2, 2  # queries and keys are turned one after the other
    assert counter.ours["rms_norm"] == steps * (LAYERS * 4 + 1)
    assert counter.ours["gate"] == steps * LAYERS
    assert counter.ours["rotate"] == steps * LAYERS * both


def test_what_computes_something_else_stays(
    tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names promise nothing: a norm that centres, a gate that doubles, angles that turn back."""

    def centred(self: Any, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[-1:]) * self.weight

    def doubled(self: Any, x: torch.Tensor) -> torch.Tensor:
        return 2 * self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))

    own = modeling_llama.apply_rotary_pos_emb
    original = getattr(own, "own", own)
    monkeypatch.setattr(modeling_llama.LlamaRMSNorm, "forward", centred)
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", doubled)
    monkeypatch.setattr(
        modeling_llama,
        "apply_rotary_pos_emb",
        lambda q, k, cos, sin: original(q, k, cos, -sin),
    )
    path = make_tiny_model(tmp_path, "llama")
    plain = answer(path, calls, "torch")
    assert answer(path, calls, "native") == plain
    assert not calls


def clamped(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Do what DeepSeek V4's feed-forward does."""
    gates = self.gate_proj(x).clamp(max=15)
    return self.down_proj(self.act_fn(gates) * self.up_proj(x).clamp(-15, 15))


def sparse(self: Any, x: torch.Tensor) -> torch.Tensor:
    """Do what Gemma 3n's feed-forward does: some layers let small gates go."""
    gates = self.gate_proj(x)
    gates = gates.where(gates > self.least, 0) if self.least > 0 else gates
    return self.down_proj(self.act_fn(gates) * self.up_proj(x))


def test_gates_that_differ_rarely_or_in_some_layers_stay(
    tmp_path: Path, calls: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clamp that random rows do not reach; layers of one class of which one is another."""
    monkeypatch.setattr(probe, "lead_layers", lambda *_: [])
    path = make_tiny_model(tmp_path, "llama")
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", clamped)
    answer(path, calls, "native")
    assert calls["gate"] == 0
    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", sparse)
    made = modeling_llama.LlamaDecoderLayer.__init__

    def numbered(self: Any, config: Any, layer_idx: int) -> None:
        made(self, config, layer_idx)
        self.mlp.least = 0.5 * layer_idx

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "__init__", numbered)
    plain = answer(path, calls, "torch")
    assert answer(path, calls, "native") == plain
    assert calls["gate"] == STEPS * (LAYERS - 1)


def test_a_rotation_may_be_asked_for_by_name(tmp_path: Path) -> None:
    """Some models name `unsqueeze_dim`: transformers' own function answers that."""
    load_backbone(make_tiny_model(tmp_path, "llama"), "cpu", torch.float32)
    led: Any = modeling_llama.apply_rotary_pos_emb
    q, k = torch.randn(1, 5, 4, 8), torch.randn(1, 5, 2, 8)
    cos, sin = torch.randn(2, 1, 5, 8)
    expected = led.own(q, k, cos, sin, unsqueeze_dim=2)
    assert all(map(torch.equal, led(q, k, cos, sin, unsqueeze_dim=2), expected))


def test_a_copy_runs_its_own_weights(tmp_path: Path) -> None:
    """Models are copied, by tests and by peers: what was led belongs to the module it is in."""
    model = load_backbone(make_tiny_model(tmp_path, "llama"), "cpu", torch.float32).model
    copy = deepcopy(model)
    norm = copy.model.norm
    with torch.no_grad():
        norm.weight.mul_(2)
    x = torch.randn(3, len(norm.weight))
    assert torch.equal(norm(x), 2 * model.model.norm(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_are_led_too(dtype: torch.dtype, tmp_path: Path, calls: Counter[str]) -> None:
    """Their rounding is no other formula."""
    answer(make_tiny_model(tmp_path, "gemma"), calls, "native", dtype)
    assert all(calls[name] for name in KERNELS)

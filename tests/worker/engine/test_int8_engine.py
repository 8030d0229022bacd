"""The engine with weights in eight bits: what answers, what is kept, and rows by themselves."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from aril.kernels.native import quantize_rows
from aril.kernels.sgmv import make_plan
from aril.schemas import Sampling
from aril.worker.engine import int8_weight
from aril.worker.engine.attention import LayoutRecorder, UnsupportedModelError
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.int8_weight import Int8Weight
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.model import load_backbone
from aril.worker.engine.packed_weight import PackedWeight
from aril.worker.engine.probe import install_adapters
from aril.worker.engine.request import GenerationRequest
from aril.worker.engine.tiled_weight import TiledWeight
from tests.support.int8 import needs_int8
from tests.support.tiny import Architecture, make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from pathlib import Path

    from aril.worker.engine.model import Backbone

pytestmark = needs_int8

CONFIG = EngineConfig(
    max_rows=8, max_step_tokens=64, slots=3, max_rank=8, kv_tokens=1024, weights="int8"
)
IDS = torch.arange(40) * 7 % 384
SAMPLED = Sampling(max_tokens=10, temperature=0.9, logprobs=3, ignore_eos=True)


def logits(path: Path, config: EngineConfig, slot: int) -> Tensor:
    """Logits of one sequence with nobody's adapter (-1), LoRA (0) or DoRA (1)."""
    backbone = load_backbone(path, "cpu", config.dtype)
    layers = install_adapters(backbone, config)
    for place, dora in enumerate((False, True)):
        shapes = backbone.linear_shapes
        layers.load(place, random_adapter(shapes, f"a{place}", rank=4, scaling=0.5, dora=dora))
    plan = make_plan(torch.full((len(IDS),), slot, dtype=torch.int32), slots=config.slots)
    layers.begin((plan,), (plan,))
    places = torch.arange(len(IDS))
    return backbone.forward(IDS, places, places, LayoutRecorder()).float()


def apart(one: Tensor, other: Tensor) -> float:
    """Return the root of the mean square of a difference, as a share."""
    return float((one - other).square().mean().sqrt() / other.square().mean().sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_over_eight_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    """LoRA and DoRA are as close to those over the stored weights as the backbone is."""
    path = make_tiny_model(tmp_path, "llama")
    whole = replace(CONFIG, weights="stored")
    expected = [logits(path, whole, slot) for slot in (-1, 0, 1)]
    assert min(apart(expected[0], each) for each in expected[1:]) > 0.5
    for slot, reference in zip((-1, 0, 1), expected, strict=True):
        found = logits(path, replace(CONFIG, dtype=dtype), slot)
        assert 0 < apart(found, reference) < 0.12


@pytest.mark.parametrize("arch", ["gpt2", "qwen2", "mixtral"])
def test_what_is_in_eight_bits(arch: Architecture, tmp_path: Path) -> None:
    """Linears of the layers; the output module, routers and experts are as they are stored."""
    path = make_tiny_model(tmp_path, arch)
    backbone = load_backbone(path, "cpu", torch.float32)
    layers = install_adapters(backbone, CONFIG)
    kept = {backbone.output_module, *backbone.parameters.routers}
    for group in layers.groups:
        stored = not kept.isdisjoint(group.names)
        assert isinstance(group._packed, PackedWeight | TiledWeight if stored else Int8Weight)
    assert sum(type(group._packed) is not Int8Weight for group in layers.groups) == len(kept)
    assert all(
        parameter.is_floating_point()
        for name, parameter in backbone.model.named_parameters()
        if "expert" in name
    )


def test_the_stored_weights_are_let_go(tmp_path: Path) -> None:
    """A byte a weight, a scale a row, and nothing of what they were made from."""
    backbone = load_backbone(make_tiny_model(tmp_path), "cpu", torch.float32)
    layers = AdapterLayers(backbone, CONFIG)
    stored = [StorageWeakRef(group.weight.untyped_storage()) for group in layers.groups]
    assert not any(each.expired() for each in stored)
    layers.pack()
    gc.collect()
    for group, each in zip(layers.groups, stored, strict=True):
        assert each.expired()
        if isinstance(packed := group._packed, Int8Weight):
            held = [each for each in vars(packed).values() if isinstance(each, Tensor)]
            beside = 4 * (2 * len(group.weight) + group.in_features)
            assert sum(each.nbytes for each in held) == group.weight.numel() + beside
            assert all(member.weight.is_meta for member in group.members)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_answer_is_the_same_alone_and_among_others(dtype: torch.dtype, tmp_path: Path) -> None:
    """In invariant mode, bit for bit: prompts in pieces, decodes, adapters beside it."""
    path = make_tiny_model(tmp_path, "llama")
    config = replace(CONFIG, invariant=True, dtype=dtype, backend="torch")

    def engine(**changes: Any) -> Engine:
        own = replace(config, **changes)
        return Engine(load_backbone(path, "cpu", dtype), own)

    shapes = load_backbone(path, "cpu", dtype).linear_shapes
    adapters = [None, *(random_adapter(shapes, f"r{n}", rank=n, dora=n == 4) for n in (2, 4))]
    requests = [
        GenerationRequest(
            key=key,
            prompt_ids=tuple((31 * at + 7 * key + 3) % 384 for at in range(1 + 9 * key % 50)),
            sampling=SAMPLED,
            seed=key,
            adapter=adapters[key % 3],
        )
        for key in range(9)
    ]
    together = answers(engine(), requests)
    backwards = answers(engine(max_rows=3, max_step_tokens=19), requests[::-1])
    assert backwards == together
    for request in requests[::3]:
        assert answers(engine(), [request])[request.key] == together[request.key]


def answers(engine: Engine, requests: list[GenerationRequest]) -> dict[int, list[Any]]:
    """Run until all is answered; return ids and logprobs to the last bit."""
    found: dict[int, list[Any]] = {request.key: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for output in engine.step():
            assert output.error is None
            found[output.key] += [(output.ids, output.logprobs)] if output.ids else []
    return found


def test_two_workers_compute_with_the_same_weights(tmp_path: Path) -> None:
    """Smoothing hangs on nothing but the model."""
    path = make_tiny_model(tmp_path)
    one, other = (
        install_adapters(load_backbone(path, "cpu", torch.float32), CONFIG) for _ in range(2)
    )
    for a, b in zip(one.groups, other.groups, strict=True):
        for left, right in zip(a.dense_weights(), b.dense_weights(), strict=True):
            assert torch.equal(left, right)


def test_products_that_are_wrong_end_the_start(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows without their factors give another model, and the probe says so."""
    monkeypatch.setattr(
        int8_weight, "quantize_rows", lambda x, factors: quantize_rows(x, torch.ones_like(factors))
    )
    with pytest.raises(UnsupportedModelError, match="with weights in eight bits logits differ"):
        install_adapters(backbone, CONFIG)


def test_not_on_this_processor(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The start ends in one line before anything is changed."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(UnsupportedModelError, match="avx512_vnni or avx_vnni"):
        install_adapters(backbone, CONFIG)

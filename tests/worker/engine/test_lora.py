"""Adapter layers: which linears are fused, what they add, and what a slot leaves behind."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.kernels.sgmv import make_plan
from aril.schemas import ErrorCode, JobError
from aril.worker.adapters import AdapterWeights, LoraModule
from aril.worker.engine.attention import LayoutRecorder
from aril.worker.engine.block_products import ROW_COUNTS
from aril.worker.engine.config import Backend, EngineConfig
from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.model import Backbone, load_backbone
from aril.worker.engine.packed_weight import can_pack
from aril.worker.engine.packing import PackedRow, pack
from aril.worker.engine.probe import LOGIT_BOUND, plain_logits, probe_packed_rows
from aril.worker.engine.tiled_weight import can_tile
from tests.support.launches import LaunchCounter
from tests.support.tiny import make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

ATTENTION_IN = ("q_proj", "k_proj", "v_proj")
IDS = torch.tensor([5, 9, 300, 7, 42, 11])

CONFIG = EngineConfig(
    max_rows=4,
    max_step_tokens=32,
    slots=3,
    max_rank=8,
    kv_tokens=64,
    backend="torch",
)


def adapter(
    backbone: Backbone, modules: Iterable[str], *, rank: int = 4, seed: int = 0, name: str = "a"
) -> AdapterWeights:
    """Random weights for every linear whose path ends in one of `modules`."""
    shapes = backbone.linear_shapes
    return random_adapter(shapes, name, rank=rank, scaling=0.75, seed=seed, targets=tuple(modules))


def logits(backbone: Backbone, layers: AdapterLayers, row_slots: list[int]) -> Tensor:
    """Logits [6, vocab] of one sequence of six tokens, its rows in these slots."""
    plan = make_plan(torch.tensor(row_slots, dtype=torch.int32), slots=CONFIG.slots)
    layers.begin((plan,), (plan,))
    return backbone.forward(IDS, torch.arange(6), torch.arange(6), LayoutRecorder())


def merged_logits(path: Path, weights: AdapterWeights) -> Tensor:
    """Logits of the same sequence, the adapter added to the backbone's own weights."""
    merged = load_backbone(path, "cpu", torch.float32)
    for name, module in weights.modules.items():
        linear = merged.model.get_submodule(name)
        linear.weight.data += module.scaling * module.b @ module.a
    return merged.plain_forward(IDS)


def test_without_adapters_nothing_changes(backbone: Backbone) -> None:
    """Wrapped and fused, the model still gives its own logits."""
    expected = plain_logits(backbone)
    AdapterLayers(backbone, CONFIG).begin((), ())
    assert probe_packed_rows(backbone, expected, "torch") < 1e-5


@pytest.mark.parametrize(
    "modules",
    [ATTENTION_IN, ("v_proj",), ("o_proj", "gate_proj"), ("down_proj", "up_proj"), ("lm_head",)],
    ids="-".join,
)
def test_adapter_equals_merged_weights(
    modules: tuple[str, ...], backbone: Backbone, tmp_path: Path
) -> None:
    """Any target, alone or part of a group, the output module too: as if it were merged."""
    weights = adapter(backbone, modules)
    layers = AdapterLayers(backbone, CONFIG)
    plain = logits(backbone, layers, [-1] * 6)
    layers.load(1, weights)
    expected = merged_logits(tmp_path, weights)
    assert (logits(backbone, layers, [1] * 6) - expected).abs().max() < 1e-4
    assert (plain - expected).abs().max() > 0.1


def test_output_module_uses_the_slots_of_its_own_rows(backbone: Backbone, tmp_path: Path) -> None:
    """The logits of two sequences, one adapted at the output, each with its own weights."""
    weights = adapter(backbone, ["lm_head"])
    layers = AdapterLayers(backbone, CONFIG)
    layers.load(0, weights)
    cache = KVCache.of(backbone, replace(CONFIG, kv_block=4))
    packed = pack([PackedRow([1, 2, 3], 0, [0]), PackedRow(IDS.tolist(), 0, [1, 2])], cache)
    slots = torch.tensor([-1] * 3 + [0] * 6, dtype=torch.int32)
    layers.begin([make_plan(slots, slots=3)], [make_plan(slots[[2, 8]], slots=3)])
    found = backbone.forward(
        packed.input_ids, packed.position_ids, packed.logits_index, packed.attention
    )
    assert (found[1] - merged_logits(tmp_path, weights)[-1]).abs().max() < 1e-4


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_a_slot_keeps_nothing_of_its_former_adapter(backend: Any, tmp_path: Path) -> None:
    """After a large adapter, a smaller one on other modules gives the bits of a fresh slot."""
    path = make_tiny_model(tmp_path, "llama", num_hidden_layers=1, intermediate_size=64)
    config = replace(CONFIG, backend=backend)
    states = []
    for former in (True, False):
        backbone = load_backbone(path, "cpu", torch.float32)
        layers = AdapterLayers(backbone, config)
        large = adapter(backbone, [*ATTENTION_IN, "o_proj", "up_proj", "lm_head"], rank=8, seed=1)
        if former:
            layers.load(0, large)
        layers.load(0, adapter(backbone, ["k_proj", "o_proj"], rank=2, seed=2))
        if backend == "triton":
            stores: list[Any] = [group.weights for group in layers.groups]
            states.append([[s.a, *s.b, s.ranks, s.scales] for s in stores if s is not None])
        else:
            states.append([[logits(backbone, layers, [0] * 6)]])
    for reused, fresh in zip(*states, strict=False):
        assert all(torch.equal(a, b) for a, b in zip(reused, fresh, strict=True))
    if backend == "triton":  # the large adapter alone had touched the output module
        assert all(not tensor.any() for tensor in states[0][-1])


@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
def test_launches_per_layer(backbone: Backbone) -> None:
    """Four shrinks and four expands a layer serve seven linears and any number of adapters."""
    layers = AdapterLayers(backbone, replace(CONFIG, backend="triton"))
    for slot in range(3):
        every = adapter(backbone, [*ATTENTION_IN, "o_proj", "gate_proj", "up_proj", "down_proj"])
        layers.load(slot, every)
    with LaunchCounter() as counter:
        logits(backbone, layers, [0, 1, 2, -1, 0, 1])
    assert counter.ours == {"sgmv_shrink": 2 * 4, "sgmv_expand": 2 * 4}
    with LaunchCounter() as counter:
        layers.begin((), ())
        backbone.forward(IDS, torch.arange(6), torch.arange(6), LayoutRecorder())
    assert counter.ours == {}
    assert counter.calls["aten::mm"] == 2 * 4 + 1  # base products: fused as the launches are


def test_biases_are_fused_with_their_linears(tmp_path: Path) -> None:
    """Biases lie where their linears do, beside an adapter too."""
    path = make_tiny_model(tmp_path, "llama", attention_bias=True, mlp_bias=True)
    backbone = load_backbone(path, "cpu", torch.float32)
    weights = adapter(backbone, [*ATTENTION_IN, "up_proj"])
    layers = AdapterLayers(backbone, CONFIG)
    layers.load(2, weights)
    expected = merged_logits(tmp_path, weights)
    assert (logits(backbone, layers, [2] * 6) - expected).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_give_the_same_model(dtype: torch.dtype, tmp_path: Path) -> None:
    """Speed and last bits change, nothing else; the plain weights are gone for good."""
    path = make_tiny_model(tmp_path, "llama", attention_bias=True)
    backbone = load_backbone(path, "cpu", dtype)
    layers = AdapterLayers(backbone, CONFIG)
    weights = adapter(backbone, ATTENTION_IN)
    layers.load(1, weights)
    before = logits(backbone, layers, [1, 1, 1, -1, -1, -1])
    layers.pack()
    after = logits(backbone, layers, [1, 1, 1, -1, -1, -1])
    assert (after - before).abs().max() <= LOGIT_BOUND[dtype] * before.abs().max()
    group = next(group for group in layers.groups if len(group.names) == 3)
    assert group.weight.is_meta
    assert all(member.weight.is_meta for member in group.members)
    layers.begin((), ())
    assert group.members[1](torch.empty(1, 0, 64, dtype=dtype)).shape == (1, 0, 32)


@pytest.mark.parametrize("backend", ["torch", "auto"])
@pytest.mark.parametrize("invariant", [False, True])
def test_products_tell_in_what_row_counts_weights_are_multiplied(
    backend: Backend, invariant: bool, tmp_path: Path
) -> None:
    """Each weight once; the output module's apart, as only rows with logits go through it."""
    backbone = load_backbone(make_tiny_model(tmp_path), "cpu", torch.float32)
    sizes = {name: out * width for name, (out, width) in backbone.linear_shapes.items()}
    layers = AdapterLayers(backbone, replace(CONFIG, invariant=invariant, backend=backend))
    layers.pack()
    if invariant:
        layers.find_row_counts()
    products = layers.products
    output = sizes.pop(backbone.output_module)
    assert sum(each.weights for each in products if not each.logits) == sum(sizes.values())
    assert sum(each.weights for each in products if each.logits) == output
    for group in layers.groups:
        if can_tile(torch.zeros(group.weight.shape), backend):
            assert group.row_counts is None
        elif can_pack(torch.zeros(1, 1)) and not invariant:
            assert group.row_counts == ROW_COUNTS
    assert {each.row_counts for each in products} == {each.row_counts for each in layers.groups}


@pytest.mark.parametrize("fault", ["unknown", "shape", "rank", "halves"])
def test_adapters_that_do_not_fit_are_bugs(fault: str, backbone: Backbone) -> None:
    """What the store would have refused raises ValueError, and that linear is left as it was."""
    layers = AdapterLayers(backbone, CONFIG)
    layers.load(0, adapter(backbone, ["q_proj"], seed=5))
    before = logits(backbone, layers, [0] * 6)
    name = "model.layers.1.self_attn.v_proj"
    a, b = torch.zeros(4, 64), torch.zeros(32, 4)
    unknown = "model.layers.7.self_attn.q_proj"
    spoiled, message = {
        "unknown": ({unknown: LoraModule(4, 1.0, a, b)}, f"no linear '{unknown}'"),
        "shape": ({name: LoraModule(4, 1.0, torch.zeros(4, 32), b)}, "don't fit"),
        "rank": ({name: LoraModule(9, 1.0, torch.zeros(9, 64), torch.zeros(32, 9))}, "rank 9"),
        "halves": ({name: LoraModule(4, 1.0, a, torch.zeros(32, 3))}, "don't fit"),
    }[fault]
    good = adapter(backbone, ["q_proj"], seed=5)
    with pytest.raises(ValueError, match=message):
        layers.load(0, replace(good, modules=dict(good.modules) | spoiled))
    assert torch.equal(logits(backbone, layers, [0] * 6), before)


def test_an_adapter_that_changes_nothing_clears_its_slot(backbone: Backbone) -> None:
    """Rows of the slot get the backbone's logits, whatever was in it before."""
    layers = AdapterLayers(backbone, CONFIG)
    plain = logits(backbone, layers, [-1] * 6)
    weights = adapter(backbone, ["q_proj", "lm_head"])
    layers.load(0, weights)
    assert not torch.equal(logits(backbone, layers, [0] * 6), plain)
    layers.load(0, replace(weights, modules={}))
    assert torch.equal(logits(backbone, layers, [0] * 6), plain)


def test_an_output_adapter_counts_only_while_it_is_in_a_slot(backbone: Backbone) -> None:
    """Once another adapter has its slot, recorded steps serve again."""
    layers = AdapterLayers(backbone, CONFIG)
    assert layers.recordable([0])
    layers.load(0, adapter(backbone, ["lm_head"]))
    layers.load(1, adapter(backbone, ["q_proj"], seed=2))
    assert not layers.recordable([1, 0])
    assert layers.recordable([1])
    layers.load(0, adapter(backbone, ["q_proj"], seed=3))
    assert layers.recordable([0])


def test_no_memory_for_the_output_is_a_refusal(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first adapter of the output module is refused, typed; the slot is as it was."""
    layers = AdapterLayers(backbone, CONFIG)
    layers.load(0, adapter(backbone, ["q_proj"], seed=5))
    before = logits(backbone, layers, [0] * 6)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr("aril.worker.engine.lora.make_slot_weights", full)
    with pytest.raises(JobError) as told:
        layers.load(0, adapter(backbone, ["q_proj", "lm_head"]))
    assert told.value.code is ErrorCode.OVERLOADED
    assert layers.recordable([0])
    assert torch.equal(logits(backbone, layers, [0] * 6), before)


def with_biases(weights: AdapterWeights) -> AdapterWeights:
    """Return the adapter with a bias of its own at each module."""
    modules = {
        name: replace(module, bias=torch.linspace(-1, 1, len(module.b)))
        for name, module in weights.modules.items()
    }
    return replace(weights, modules=modules)


def test_biases_are_of_their_slot(backbone: Backbone) -> None:
    """They change their own rows only, and are gone with their adapter."""
    layers = AdapterLayers(backbone, CONFIG)
    weights = adapter(backbone, ["q_proj", "o_proj", "lm_head"])
    layers.load(0, weights)
    layers.load(1, adapter(backbone, ["down_proj"], seed=2))
    without = [logits(backbone, layers, [slot] * 6) for slot in (-1, 0, 1)]
    layers.load(0, with_biases(weights))
    assert not layers.recordable([0])
    found = [logits(backbone, layers, [slot] * 6) for slot in (-1, 0, 1)]
    assert torch.equal(found[0], without[0])
    assert float((found[1] - without[1]).abs().max()) > 0.1
    assert torch.equal(found[2], without[2])
    layers.load(0, weights)
    assert torch.equal(logits(backbone, layers, [0] * 6), without[1])


def test_no_memory_for_biases_is_a_refusal(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first adapter with biases is refused, typed; the slot is as it was."""
    layers = AdapterLayers(backbone, CONFIG)
    weights = adapter(backbone, ["q_proj"], seed=5)
    layers.load(0, weights)
    before = logits(backbone, layers, [0] * 6)

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("tried to allocate 20 GiB")

    monkeypatch.setattr("aril.worker.engine.lora.SlotBiases", full)
    with pytest.raises(JobError) as told:
        layers.load(0, with_biases(adapter(backbone, ["v_proj"])))
    assert told.value.code is ErrorCode.OVERLOADED
    assert layers.recordable([0])
    assert torch.equal(logits(backbone, layers, [0] * 6), before)

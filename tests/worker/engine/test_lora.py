"""Adapter layers: which linears are fused, what they add, and what a slot leaves behind."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any

import pytest
import torch
from structlog.testing import capture_logs
from transformers.models.llama import modeling_llama

from kernels.sgmv import make_plan
from schemas import ErrorCode, JobError
from tests.support.launches import LaunchCounter
from tests.support.tiny import Architecture, make_tiny_adapter, make_tiny_model
from tests.support.weights import random_adapter
from worker.adapters import AdapterStore, AdapterWeights, LoraModule
from worker.engine.attention import LayoutRecorder
from worker.engine.config import EngineConfig
from worker.engine.groups import LinearGroup
from worker.engine.kv_cache import KVCache
from worker.engine.lora import AdapterLayers
from worker.engine.model import Backbone, load_backbone
from worker.engine.packing import PackedRow, pack
from worker.engine.probe import LOGIT_BOUND, install_adapters, plain_logits, probe_packed_rows
from worker.engine.siblings import find_siblings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
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


@pytest.fixture
def backbone(tmp_path: Path) -> Backbone:
    """Load a tiny Llama."""
    return load_backbone(make_tiny_model(tmp_path, "llama"), "cpu", torch.float32)


def adapter(
    backbone: Backbone, modules: Iterable[str], *, rank: int = 4, seed: int = 0, name: str = "a"
) -> AdapterWeights:
    """Random weights for every linear whose path ends in one of `modules`."""
    shapes = backbone.linear_shapes
    return random_adapter(shapes, name, rank=rank, scaling=0.75, seed=seed, targets=tuple(modules))


def logits(backbone: Backbone, layers: AdapterLayers, row_slots: list[int]) -> Tensor:
    """Logits [6, vocab] of one sequence of six tokens, its rows in these slots."""
    plan = make_plan(torch.tensor(row_slots, dtype=torch.int32), slots=CONFIG.slots)
    layers.begin(plan, plan)
    return backbone.forward(IDS, torch.arange(6), torch.arange(6), LayoutRecorder())


def merged_logits(path: Path, weights: AdapterWeights) -> Tensor:
    """Logits of the same sequence, the adapter added to the backbone's own weights."""
    merged = load_backbone(path, "cpu", torch.float32)
    for name, module in weights.modules.items():
        linear = merged.model.get_submodule(name)
        linear.weight.data += module.scaling * module.b @ module.a
    return merged.plain_forward(IDS)


@pytest.mark.parametrize("arch", ["llama", "qwen3", "gemma"])
def test_siblings_are_found(arch: Architecture, tmp_path: Path) -> None:
    """q, k, v read one tensor, gate and up another; o, down and the output module are alone."""
    backbone = load_backbone(make_tiny_model(tmp_path, arch), "cpu", torch.float32)
    endings = [
        tuple(name.rpartition(".")[2] for name in group) for group in find_siblings(backbone)
    ]
    layer = [ATTENTION_IN, ("o_proj",), ("gate_proj", "up_proj"), ("down_proj",)]
    assert endings == [*layer, *layer, ("lm_head",)]


def test_inputs_changed_in_place_are_not_shared(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linears that get one tensor before and after a change in place stay apart."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        x.add_(1.0)
        return self.down_proj(gate * self.up_proj(x))

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    groups = find_siblings(backbone)
    assert ("model.layers.0.mlp.gate_proj",) in groups
    assert ("model.layers.0.mlp.up_proj",) in groups


def test_linears_that_see_some_rows_take_no_adapter(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where a linear runs on a part of the rows, as in a mixture of experts, it is left alone.

    Adapters that change it are refused when their folder is read.
    """

    def forward(self: Any, x: Tensor) -> Tensor:
        up = torch.cat((self.up_proj(x[:, :3]), self.gate_proj(x[:, 3:])), dim=1)
        return self.down_proj(up)

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    found = {name for group in find_siblings(backbone) for name in group}
    assert "model.layers.0.mlp.down_proj" in found
    assert not any(name.endswith(("gate_proj", "up_proj")) for name in found)
    layers = AdapterLayers(backbone, CONFIG)
    assert not any(name.endswith(("gate_proj", "up_proj")) for name in layers.shapes)
    with pytest.raises(ValueError, match=r"no linear 'model\.layers\.0\.mlp\.up_proj'"):
        layers.prepare(adapter(backbone, ["up_proj"]))
    root = tmp_path / "store"
    make_tiny_adapter(root / "shared" / "a", tmp_path, targets=("up_proj",))
    store = AdapterStore(root, base_model=None, linear_shapes=layers.shapes, max_rank=8)
    with pytest.raises(JobError, match=r"mlp\.up_proj.*no such linear layer") as caught:
        store.load(store.find("acme", "a"))
    assert caught.value.code == ErrorCode.ADAPTER_INVALID


def test_without_adapters_nothing_changes(backbone: Backbone) -> None:
    """Wrapped and fused, the model still gives its own logits."""
    expected = plain_logits(backbone)
    AdapterLayers(backbone, CONFIG).begin(None, None)
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
    layers.begin(make_plan(slots, slots=3), make_plan(slots[[2, 8]], slots=3))
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
        layers.begin(None, None)
        backbone.forward(IDS, torch.arange(6), torch.arange(6), LayoutRecorder())
    assert counter.ours == {}
    assert counter.calls["aten::linear"] == 2 * 4 + 1  # base products: fused as the launches are


def attention_group(backbone: Backbone) -> tuple[AdapterLayers, LinearGroup]:
    """Install the layers; return them and the first layer's q, k, v."""
    layers = AdapterLayers(backbone, CONFIG)
    return layers, next(group for group in layers.groups if len(group.names) == 3)


def test_group_computes_once_and_keeps_nothing(backbone: Backbone) -> None:
    """Members share one product; a new step or another input computes anew; then memory is free."""
    layers, group = attention_group(backbone)
    q, k, v = group.members
    x = torch.randn(1, 5, 64)
    with LaunchCounter() as counter:
        outputs = [q(x), k(x), v(x)]
    assert counter.calls["aten::mm"] == 1
    assert torch.equal(torch.cat(outputs, dim=-1), x @ group.weight.T)
    assert group._pending is None
    first = q(x)
    x.mul_(2.0)  # a buffer that is used again, as under a CUDA graph
    layers.begin(None, None)
    assert group._pending is None
    assert torch.equal(k(x), 2 * (x / 2 @ k.weight.T))
    assert torch.equal(q(x), 2 * first)
    assert torch.equal(q(x), 2 * first)  # called twice with one input
    v(x)
    other = torch.randn(1, 5, 64)
    assert torch.equal(v(other), (other @ group.weight.T)[..., -32:])
    assert group._pending is None  # what was left of x is not kept for a guess that was wrong
    assert q(other).shape == (1, 5, 64)
    assert k(other).shape == (1, 5, 32)
    assert v(other).shape == (1, 5, 32)
    assert group._pending is None


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_members_are_right_in_any_order(order: tuple[int, ...], backbone: Backbone) -> None:
    """Whoever comes first, with its own or another's input, gets its own product of it."""
    _, group = attention_group(backbone)
    for _ in range(2):
        x, other = torch.randn(1, 5, 64), torch.randn(1, 5, 64)
        for index in (*order, *order):  # the second time there is nothing left to pick up
            assert torch.equal(group.members[index](x), part(group, index, x))
        for index, given in zip(order, (x, other, x), strict=True):
            assert torch.equal(group.members[index](given), part(group, index, given))


def part(group: LinearGroup, index: int, x: Tensor) -> Tensor:
    """Return one member's share of the whole group's product."""
    return (x @ group.weight.T).split(group.widths, dim=-1)[index]


def test_steps_are_compiled_once(backbone: Backbone) -> None:
    """What one member leaves for another is no state that a compiler would see change."""
    layers, group = attention_group(backbone)
    compiled: list[object] = []

    def backend(graph: torch.fx.GraphModule, _inputs: object) -> Callable[..., object]:
        compiled.append(graph)
        return graph.forward

    def attention(x: Tensor) -> Tensor:
        return torch.cat([member(x) for member in group.members], dim=-1)

    torch._dynamo.reset()
    run = torch.compile(attention, backend=backend, fullgraph=True)
    for _ in range(4):
        layers.begin(None, None)
        x = torch.randn(1, 5, 64)
        assert torch.equal(run(x), x @ group.weight.T)
    assert len(compiled) == 1
    assert group._pending is None


def test_models_that_cannot_use_slices_get_separate_linears(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A view that a slice of a fused output does not allow costs the fusion, not the start."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x).view(-1), self.up_proj(x).view(-1)
        return self.down_proj((self.act_fn(gate) * up).view(*x.shape[:-1], -1))

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    with capture_logs() as logged:
        layers = install_adapters(backbone, CONFIG)
    assert all(len(group.names) == 1 for group in layers.groups)
    (line,) = logged
    assert (line["event"], line["model"]) == ("linears_not_fused", "llama")
    assert line["reason"].startswith("view size is not compatible")
    layers.load(0, adapter(backbone, ["gate_proj"]))
    assert logits(backbone, layers, [0] * 6).isfinite().all()


def test_models_that_slices_change_get_separate_linears(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that looks at the memory behind an output is served right, and the log says why."""

    def forward(self: Any, x: Tensor) -> Tensor:
        gate = self.gate_proj(x)
        flat = gate.as_strided(gate.shape, (gate.shape[1] * gate.shape[2], gate.shape[2], 1))
        return self.down_proj(self.act_fn(flat) * self.up_proj(x))

    monkeypatch.setattr(modeling_llama.LlamaMLP, "forward", forward)
    with capture_logs() as logged:
        layers = install_adapters(backbone, CONFIG)
    assert all(len(group.names) == 1 for group in layers.groups)
    (line,) = logged
    assert "logits of packed rows differ" in line["reason"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), RuntimeError("cuBLAS")])
def test_other_failures_are_no_reason_to_go_on(
    error: RuntimeError, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that runs out and a kernel that fails end the start as what they are."""

    def fail(_group: LinearGroup, _x: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(LinearGroup, "first", fail)
    with pytest.raises(type(error), match=str(error)):
        install_adapters(backbone, CONFIG)


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
    layers.begin(None, None)
    assert group.members[1](torch.empty(1, 0, 64, dtype=dtype)).shape == (1, 0, 32)


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


def test_a_cleared_slot_is_the_backbone(backbone: Backbone) -> None:
    """Rows of an empty slot get the backbone's logits."""
    layers = AdapterLayers(backbone, CONFIG)
    plain = logits(backbone, layers, [-1] * 6)
    layers.load(0, adapter(backbone, ["q_proj", "lm_head"]))
    assert not torch.equal(logits(backbone, layers, [0] * 6), plain)
    layers.clear(0)
    assert torch.equal(logits(backbone, layers, [0] * 6), plain)

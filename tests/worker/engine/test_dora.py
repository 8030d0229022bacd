"""DoRA in the engine: gains from the backbone's weights, and mixed batches that keep their bits."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.kernels.sgmv import make_plan
from aril.schemas import ErrorCode, JobError, Sampling
from aril.worker.adapters import AdapterWeights, LoraModule
from aril.worker.engine import dora
from aril.worker.engine.attention import LayoutRecorder
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.dora import NoDirectionError, gain_of
from aril.worker.engine.engine import Engine
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.model import Backbone, load_backbone
from aril.worker.engine.request import GenerationRequest
from tests.support.tiny import ALL_LINEARS, make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import Tensor

IDS = torch.tensor([5, 9, 300, 7, 42, 11])
CONFIG = EngineConfig(
    max_rows=4, max_step_tokens=32, slots=3, max_rank=8, kv_tokens=64, backend="torch"
)


@pytest.fixture
def biased(tmp_path: Path) -> Path:
    """Make a tiny Llama with large biases at every linear of its layers."""
    return make_tiny_model(tmp_path / "model", "llama", attention_bias=True, mlp_bias=True)


def backbone_of(path: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    """Load the model."""
    return load_backbone(path, "cpu", dtype)


def module(out: int, into: int, *, rank: int = 4, seed: int = 0, dora: bool = True) -> LoraModule:
    """Random weights of one linear; with DoRA also lengths."""
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(rank, into, generator=generator) * into**-0.5
    b = torch.randn(out, rank, generator=generator) * rank**-0.5
    magnitude = torch.rand(out, generator=generator) * 2 + 1
    return LoraModule(rank, 0.75, a, b, magnitude if dora else None)


def adapter(
    backbone: Backbone, targets: Iterable[str], *, name: str = "a", rank: int = 4, dora: bool = True
) -> AdapterWeights:
    """Random weights for every linear whose path ends in one of `targets`."""
    endings = tuple(targets)
    made = {
        path: module(out, into, rank=rank, seed=len(path) + rank, dora=dora)
        for path, (out, into) in backbone.linear_shapes.items()
        if path.endswith(endings)
    }
    return AdapterWeights(name=name, digest=name, rank=rank, modules=made)


def logits(backbone: Backbone, layers: AdapterLayers, row_slots: list[int]) -> Tensor:
    """Logits [6, vocab] of one sequence of six tokens, its rows in these slots."""
    plan = make_plan(torch.tensor(row_slots, dtype=torch.int32), slots=CONFIG.slots)
    layers.begin((plan,), (plan,))
    return backbone.forward(IDS, torch.arange(6), torch.arange(6), LayoutRecorder())


def merged_logits(path: Path, weights: AdapterWeights) -> Tensor:
    """Logits of the same sequence with m ⊙ (W + s B A) / ‖W + s B A‖ in the place of W."""
    merged = backbone_of(path)
    for name, part in weights.modules.items():
        linear = merged.model.get_submodule(name)
        changed = linear.weight.data.double() + part.scaling * part.b.double() @ part.a.double()
        assert part.magnitude is not None
        changed *= (part.magnitude.double() / changed.norm(dim=1))[:, None]
        linear.weight.data.copy_(changed)
    return merged.plain_forward(IDS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 40), (512, 64), (513, 64), (1500, 7)])
def test_gain_against_fp64(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """Whole and broken chunks of rows, every type of weight: off by a few last bits of fp32."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    part = module(*shape, seed=2)
    part = replace(part, magnitude=-part.magnitude if part.magnitude is not None else None)
    assert part.magnitude is not None
    changed = weight.double() + part.scaling * part.b.double() @ part.a.double()
    expected = part.magnitude.double() / changed.norm(dim=1)
    gain = gain_of(weight, part)
    assert gain.dtype is torch.float32
    assert ((gain.double() - expected) / expected).abs().max() < 1e-6


def test_gain_where_the_adapter_takes_nearly_everything_away() -> None:
    """W + s B A a thousandth of W: the norm is of the difference, not a difference of norms."""
    part = module(32, 16, rank=8, seed=4)
    taken = part.scaling * part.b.double() @ part.a.double()
    weight = (-0.999 * taken).float()
    assert part.magnitude is not None
    expected = part.magnitude.double() / (weight.double() + taken).norm(dim=1)
    assert ((gain_of(weight, part).double() - expected) / expected).abs().max() < 1e-3


def test_the_changed_weight_never_exists_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are changed a chunk at a time."""
    monkeypatch.setattr(dora, "_ROWS", 5)
    weight, part = torch.randn(23, 6), module(23, 6)
    sizes: list[int] = []
    product = torch.addmm

    def addmm(chunk: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        sizes.append(len(chunk))
        return product(chunk, *args, **kwargs)

    monkeypatch.setattr(torch, "addmm", addmm)
    gain_of(weight, part)
    assert sizes == [5, 5, 5, 5, 3]


@pytest.mark.parametrize("row", [0, 700])
def test_a_row_of_zeros_has_no_length(row: int) -> None:
    """PEFT would divide by zero; also where the adapter takes exactly all of a row away."""
    weight, part = torch.ones(800, 6), module(800, 6)
    part.b[row] = 0
    weight[row] = 0
    with pytest.raises(NoDirectionError, match=f"row {row} ") as caught:
        gain_of(weight, part)
    assert caught.value.row == row
    part.b[row, 0] = 1.0
    part.a[0] = 2.0
    weight[row] = -0.75 * 2.0
    with pytest.raises(NoDirectionError, match=f"row {row} "):
        gain_of(weight, part)


def test_a_length_past_fp32_is_refused() -> None:
    """Finite values whose row is not."""
    part = module(4, 6)
    part.b[2] = 3e38
    with pytest.raises(NoDirectionError, match="row 2 "):
        gain_of(torch.ones(4, 6), part)


@pytest.mark.parametrize(
    "targets",
    [ALL_LINEARS, ("v_proj",), ("q_proj", "v_proj", "up_proj"), ("down_proj",), ("lm_head",)],
    ids="-".join,
)
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "packed"])
def test_dora_equals_merged_weights(targets: tuple[str, ...], packed: bool, biased: Path) -> None:
    """Any target, all or some of a fused group, beside biases: as if W had been replaced."""
    backbone = backbone_of(biased)
    weights = adapter(backbone, targets)
    layers = AdapterLayers(backbone, CONFIG)
    if packed:
        layers.pack()
    plain = logits(backbone, layers, [-1] * 6)
    layers.load(1, weights)
    expected = merged_logits(biased, weights)
    bound = 1e-5 * float(expected.abs().max())
    assert (logits(backbone, layers, [1] * 6) - expected).abs().max() < bound
    assert (plain - expected).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning")
def test_dora_through_the_triton_kernels(biased: Path) -> None:
    """The path that a GPU takes, run by the interpreter, biases and all."""
    backbone = backbone_of(biased)
    weights = adapter(backbone, ("q_proj", "v_proj", "down_proj", "lm_head"))
    layers = AdapterLayers(backbone, replace(CONFIG, backend="triton"))
    layers.load(1, weights)
    expected = merged_logits(biased, weights)
    bound = 1e-5 * float(expected.abs().max())
    assert (logits(backbone, layers, [1] * 6) - expected).abs().max() < bound


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_gains_of_a_packed_backbone_are_those_of_the_plain_one(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    """Laid out for speed, tied to the embedding: the weights are read back bit for bit."""
    path = make_tiny_model(tmp_path, "llama", tie_word_embeddings=True)
    gains = []
    for pack in (False, True):
        backbone = backbone_of(path, dtype)
        weights = adapter(backbone, (*ALL_LINEARS, "lm_head"))
        layers = AdapterLayers(backbone, CONFIG)
        if pack:
            layers.pack()
        layers.prepare(weights)
        gains.append([layers._gains._gains[part] for part in weights.modules.values()])
    assert len(gains[0]) == 15
    assert all(torch.equal(*pair) for pair in zip(*gains, strict=True))


@pytest.mark.parametrize("mode", ["fast", "invariant"])
def test_other_rows_keep_their_bits_beside_dora(mode: str, biased: Path) -> None:
    """LoRA and backbone rows of a linear: the bits of a batch whose DoRA rows have nothing."""
    backbone = backbone_of(biased)
    layers = AdapterLayers(backbone, CONFIG)
    layers.load(0, adapter(backbone, ALL_LINEARS, dora=False))
    slots = torch.tensor([0, 1, -1, 1, 0, -1], dtype=torch.int32)
    layers.load(1, adapter(backbone, ALL_LINEARS))
    for group in layers.groups[:-1]:
        x = torch.randn(6, group.in_features, generator=torch.Generator().manual_seed(5))
        found = []
        for row_slots in (slots, torch.where(slots == 1, -1, slots)):
            y = torch.nn.functional.linear(x, group.weight, group.bias)
            assert group.weights is not None
            group.weights.add_(y, x, make_plan(row_slots, slots=3, mode=mode))
            found.append(y)
        others = slots != 1
        assert torch.equal(found[0][others], found[1][others])
        assert not torch.equal(found[0][~others], found[1][~others])


@pytest.mark.parametrize("backend", ["torch", "triton"])
def test_lora_after_dora_in_one_slot(backend: Any, tmp_path: Path) -> None:
    """A slot that held DoRA on all linears gives a LoRA adapter the bits of a fresh slot."""
    path = make_tiny_model(tmp_path, "llama", num_hidden_layers=1)
    stores: list[list[Tensor]] = []
    for former in (True, False):
        backbone = backbone_of(path)
        layers = AdapterLayers(backbone, replace(CONFIG, backend=backend))
        if former:
            layers.load(0, adapter(backbone, (*ALL_LINEARS, "lm_head"), rank=8))
        layers.load(0, adapter(backbone, ("k_proj", "o_proj"), dora=False))
        if backend == "torch":
            stores.append([logits(backbone, layers, [0] * 6)])
        else:
            groups: list[Any] = [group.weights for group in layers.groups]
            stores.append(
                [
                    part
                    for store in groups[:-1]
                    for part in (store.a, *store.b, store.ranks, *store.gains)
                    if part is not None
                ]
            )
            if former:  # the DoRA adapter alone had touched the output module
                assert not groups[-1].gains.values.any()
                assert not groups[-1].gains.present.any()
    assert all(torch.equal(*pair) for pair in zip(*stores, strict=True))


def test_gains_are_computed_once_and_go_with_their_adapter(
    biased: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading into another slot copies; when the host lets the adapter go, nothing is left."""
    backbone = backbone_of(biased)
    layers = AdapterLayers(backbone, CONFIG)
    layers.pack()
    weights = adapter(backbone, ALL_LINEARS)
    layers.prepare(weights)

    def refuse(*_args: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr("aril.worker.engine.dora_gains.gain_of", refuse)
    monkeypatch.setattr("aril.worker.engine.groups.LinearGroup.dense_weights", refuse)
    layers.load(0, weights)
    layers.load(1, replace(weights, name="other"))  # equal content under another tenant's name
    layers.prepare(adapter(backbone, ALL_LINEARS, dora=False))
    assert len(layers._gains._gains) == 14
    del weights
    gc.collect()
    assert len(layers._gains._gains) == 0


def test_a_magnitude_of_another_width_is_a_bug(biased: Path) -> None:
    """What the store would have refused raises ValueError before anything is computed."""
    backbone = backbone_of(biased)
    layers = AdapterLayers(backbone, CONFIG)
    weights = adapter(backbone, ("q_proj",))
    name = "model.layers.1.self_attn.q_proj"
    spoiled = dict(weights.modules)
    spoiled[name] = replace(spoiled[name], magnitude=torch.ones(32))
    with pytest.raises(ValueError, match=r"a magnitude of \[32\] does not fit 64 outputs"):
        layers.prepare(replace(weights, modules=spoiled))


def test_an_adapter_without_length_is_refused_and_the_engine_goes_on(biased: Path) -> None:
    """The one request is told; the slot, the step and the others' answers are not touched."""
    engine = Engine(backbone_of(biased), CONFIG)
    good = adapter(engine.backbone, ALL_LINEARS, name="good")
    bad = adapter(engine.backbone, ALL_LINEARS, name="bad")
    name = "model.layers.0.mlp.down_proj"
    spoiled = dict(bad.modules)
    spoiled[name] = replace(spoiled[name], b=torch.full((64, 4), 3e38))
    bad = replace(bad, modules=spoiled)
    greedy = Sampling(max_tokens=4, temperature=0.0, ignore_eos=True)

    def request(key: int, weights: AdapterWeights) -> GenerationRequest:
        return GenerationRequest(
            key=key, prompt_ids=(1, 2, 3), sampling=greedy, seed=0, adapter=weights
        )

    engine.submit(request(0, good))
    with pytest.raises(JobError, match=name.replace(".", r"\.")) as caught:
        engine.submit(request(1, bad))
    assert caught.value.code is ErrorCode.ADAPTER_INVALID
    with pytest.raises(JobError, match="no length"):
        engine.prepare(bad)
    tokens = 0
    while engine.has_work:
        for output in engine.step():
            assert output.key == 0
            assert output.error is None
            tokens += len(output.ids)
    assert tokens == 4

"""Decoder layers led to one function: which, that it computes the same, and when it stands back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from aril.worker.engine import layer_forward
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.layer_kernels import lead_layers, let_go
from aril.worker.engine.led_layer import Layer
from aril.worker.engine.lora import AdapterLayers
from aril.worker.engine.model import adopt_backbone
from aril.worker.engine.packed_logits import packed_logits, probe_sequences
from aril.worker.engine.probe import LOGIT_BOUND, install_adapters, plain_logits, probe_packed_rows
from tests.support.backbone_configs import VOCABULARY
from tests.support.backbones import make_tiny_backbone
from tests.support.device import device_of
from tests.support.tiny import make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from aril.worker.engine.config import Backend
    from aril.worker.engine.model import Backbone

CONFIG = EngineConfig(max_rows=4, max_step_tokens=64, slots=2, max_rank=4, kv_tokens=256)
LED = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma")
TYPES = (torch.float32, torch.bfloat16, torch.float16)
DTYPES = pytest.mark.parametrize("dtype", TYPES)
# What a GPU runs, in Triton's interpreter, which takes seconds: each form and each type once.
TRITON = (("llama", torch.bfloat16), ("qwen3", torch.float32), ("gemma", torch.float16))


def install(
    kind: str,
    dtype: torch.dtype = torch.float32,
    *,
    invariant: bool = False,
    backend: Backend = "auto",
    **changes: Any,
) -> Backbone:
    """Make a tiny backbone of a kind with adapter layers, as an engine does."""
    model = make_tiny_backbone(kind, **changes).to(dtype)
    device = str(device_of(backend))
    backbone = adopt_backbone(model, make_tokenizer(VOCABULARY), device, name=kind)
    install_adapters(
        backbone,
        replace(CONFIG, device=device, dtype=dtype, invariant=invariant, backend=backend),
    )
    return backbone


def led(backbone: Backbone) -> list[Any]:
    """Return the layers that are led."""
    return [each for each in backbone.model.modules() if hasattr(each, "self_attn") and _led(each)]


def _led(module: Any) -> bool:
    return isinstance(getattr(module, "aril", None), Layer)


@pytest.mark.usefixtures("rounds_to_nearest")
@pytest.mark.parametrize(
    ("kind", "dtype", "backend"),
    [
        *((kind, dtype, "native") for kind in LED for dtype in TYPES),
        *((kind, dtype, "triton") for kind, dtype in TRITON),
        *(pytest.param(kind, TYPES[0], "triton", marks=pytest.mark.slow) for kind in LED),
    ],
)
def test_led_layers_give_the_models_own_logits(
    kind: str, dtype: torch.dtype, backend: Backend
) -> None:
    """Both layers are led, the first leaves its sum to the second, and logits are the model's."""
    backbone = install(kind, dtype, backend=backend)
    layers = led(backbone)
    assert [layer.aril.carries for layer in layers] == [True, False]
    assert probe_packed_rows(backbone, plain_logits(backbone), backend) <= LOGIT_BOUND[dtype]


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
@pytest.mark.parametrize("length", [1, 2, 15, 16, 17, 130, 512])
def test_any_number_of_rows(kind: str, length: int) -> None:
    """Prompts of any length at once, then one token more: as without the function."""
    backbone = install(kind, max_position_embeddings=1024)
    prompt, other = probe_sequences([length + 1, 3], backbone.vocab_size)
    steps = [[prompt[:length], other], [prompt, other]]
    ours = packed_logits(backbone, steps, "native")
    let_go(led(backbone))
    for mine, own in zip(ours, packed_logits(backbone, steps, "native"), strict=True):
        torch.testing.assert_close(mine, own, rtol=1e-4, atol=1e-4 * float(own.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_keeps_its_bits(dtype: torch.dtype) -> None:
    """In invariant mode: alone, among others of any length, in pieces and token by token."""
    backbone = install("qwen3", dtype, invariant=True)
    assert len(led(backbone)) == 2
    sequences = probe_sequences((21, 1, 6, 40), backbone.vocab_size)

    def logits(*steps: list[list[int]]) -> list[Tensor]:
        return packed_logits(backbone, steps, "native", invariant=True)

    whole = logits(sequences)
    pieces = logits(*([each[:size] for each in sequences] for size in (1, 5, 33, 40)))
    for index, each in enumerate(sequences):
        alone = logits([each])[0]
        assert torch.equal(alone, whole[index])
        assert torch.equal(alone, pieces[index])


def test_outside_of_a_step_nothing_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own forward is transformers', and so is a step without machine code."""
    backbone = install("llama")
    expected = plain_logits(backbone)

    def fail(*_: object) -> None:
        pytest.fail("a layer of ours ran")

    monkeypatch.setattr(layer_forward, "run_layer", fail)
    assert all(map(torch.equal, plain_logits(backbone), expected))
    probe_packed_rows(backbone, expected, "torch")


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("granite", {"residual_multiplier": 0.5}),  # what is added is scaled
        ("gemma2", {}),  # norms behind attention and gate too
        ("olmo2", {}),  # no norms before them
        ("mixtral", {}),  # experts
        ("stablelm", {}),  # norms that centre, some of each head turned
        ("cohere", {}),  # both parts side by side
        ("gpt2", {}),
    ],
)
def test_other_layers_stay(kind: str, changes: dict[str, Any]) -> None:
    """What is of another kind, or computes something else, keeps its own forward."""
    assert not led(install(kind, **changes))


def _scaled_by_place(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, hidden_states: Tensor, **given: Any) -> Tensor:
        scale = 1 + (given["position_ids"] // 1000).float().log1p()[..., None]
        return own(self, hidden_states * scale.to(hidden_states.dtype), **given)

    return forward


def _clamped(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, hidden_states: Tensor, **given: Any) -> Tensor:
        linear = self.mlp.down_proj
        handle = linear.register_forward_pre_hook(lambda _, args: (args[0].clamp(-50, 50),))
        try:
            return own(self, hidden_states, **given)
        finally:
            handle.remove()

    return forward


def _doubled(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, hidden_states: Tensor, **given: Any) -> Tensor:
        return 2 * own(self, hidden_states, **given) - hidden_states

    return forward


@pytest.mark.parametrize(
    ("dtype", "backend"), [*((dtype, "native") for dtype in TYPES), (torch.float32, "triton")]
)
@pytest.mark.parametrize("change", [_scaled_by_place, _clamped, _doubled])
def test_names_promise_nothing(
    change: Callable[..., Any],
    dtype: torch.dtype,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Llama's parts in a layer that scales by distant places, clamps, or counts its part twice."""
    monkeypatch.setattr(LlamaDecoderLayer, "forward", change(LlamaDecoderLayer.forward))
    model = make_tiny_backbone("llama", num_hidden_layers=1).to(dtype)
    device = str(device_of(backend))
    backbone = adopt_backbone(model, make_tokenizer(VOCABULARY), device, name="changed")
    AdapterLayers(backbone, replace(CONFIG, backend=backend))
    assert not lead_layers(model, backend)
    monkeypatch.undo()
    assert lead_layers(model, backend)


def test_an_argument_that_is_not_known_goes_to_the_layers_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It might mean anything: transformers' forward gets it, with what was left to be added."""
    backbone = install("llama")
    first, second = led(backbone)
    expected = plain_logits(backbone)
    ran = []

    def with_more(module: Any, x: Tensor, **given: Any) -> Any:
        ran.append(module)
        more: dict[str, Any] = {"output_router_logits": True} if module is second else {}
        return layer_forward.layer_forward(module, x, **given, **more)

    own = LlamaDecoderLayer.forward

    def without(self: Any, *args: Any, **given: Any) -> Any:
        assert (self is second) == (given.pop("output_router_logits", None) is not None)
        return own(self, *args, **given)

    for layer in (first, second):
        layer.forward = with_more.__get__(layer)
    monkeypatch.setattr(LlamaDecoderLayer, "forward", without)
    assert probe_packed_rows(backbone, expected, "native") < 1e-5
    assert ran[:2] == [first, second]


def test_something_between_two_layers_lets_all_go() -> None:
    """A model that touches the rows between its layers is served by the layers' own forward."""
    model = make_tiny_backbone("llama")
    model.model.layers[0].register_forward_hook(lambda _module, _args, x: x * 1.5)
    backbone = adopt_backbone(model, make_tokenizer(VOCABULARY), "cpu", name="llama")
    install_adapters(backbone, CONFIG)
    assert not led(backbone)

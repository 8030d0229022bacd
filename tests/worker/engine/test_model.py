"""Loading backbones: what runs on packed rows, and what is refused and in which words."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import DogeConfig, DogeForCausalLM, MambaConfig, MambaForCausalLM
from transformers.utils import logging as transformers_logging

from aril.worker.engine import packed_logits
from aril.worker.engine.attention import (
    LayoutRecorder,
    PagedAttention,
    UnsupportedModelError,
    attention,
)
from aril.worker.engine.forward_pass import attending
from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.model import Backbone, adopt_backbone, load_backbone
from aril.worker.engine.packing import PackedRow, pack
from aril.worker.engine.probe import LOGIT_BOUND, plain_logits, probe_packed_rows
from tests.support.backbones import make_tiny_backbone
from tests.support.tiny import Architecture, make_tiny_model, make_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

ARCHITECTURES: tuple[Architecture, ...] = ("llama", "qwen3", "gemma")


def load(path: Path) -> Backbone:
    """Load for the CPU."""
    return load_backbone(path, "cpu", torch.float32)


def tiny_backbone(kind: str, **changes: Any) -> Backbone:
    """Adopt a random model of any kind that transformers has."""
    model = make_tiny_backbone(kind, **changes)
    return adopt_backbone(model, make_tokenizer(), "cpu", name=kind)


def saved(model: Any, path: Path) -> Path:
    """Save a model beside the tests' tokenizer."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(path)
    make_tokenizer().save_pretrained(path)
    return path


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_backbone_knows_its_model(arch: Architecture, tmp_path: Path) -> None:
    """Layers, linears, vocabulary and the end token are read from model and tokenizer."""
    backbone = load(make_tiny_model(tmp_path / "tiny", arch))
    assert [(layer.heads, layer.kv_heads, layer.head_dim) for layer in backbone.layouts] == [
        (4, 2, 16)
    ] * 2
    assert len(backbone.linear_shapes) == 2 * 7 + 1
    assert backbone.linear_shapes["model.layers.1.mlp.down_proj"] == (64, 128)
    assert backbone.output_module == "lm_head"
    assert (backbone.name, backbone.vocab_size, backbone.max_positions) == ("tiny", 384, 512)
    assert backbone.eos_token_ids == {backbone.tokenizer.eos_token_id}


def test_each_end_token_ends_an_answer(tmp_path: Path) -> None:
    """A chat model's tokenizer and the base model's configuration name different ones."""
    folder = make_tiny_model(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 7]}))
    backbone = load(folder)
    assert backbone.eos_token_ids == {0, 7, backbone.tokenizer.eos_token_id}


def test_windows_come_from_the_layers(tmp_path: Path) -> None:
    """Gemma's first layer looks back 8 tokens, its second one at all."""
    backbone = load(make_tiny_model(tmp_path, "gemma"))
    assert [layout.window for layout in backbone.layouts] == [8, None]


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_packed_rows_give_the_models_own_logits(arch: Architecture, tmp_path: Path) -> None:
    """Rows of 1 to 23 tokens, in two chunks, mixed: the plain forward's logits within the bound."""
    backbone = load(make_tiny_model(tmp_path, arch))
    assert probe_packed_rows(backbone, plain_logits(backbone), "torch") < 1e-5


@pytest.mark.parametrize("arch", ["gemma2", "gpt_oss"])
def test_capped_scores_and_sinks_come_from_the_layers(arch: Architecture, tmp_path: Path) -> None:
    """Gemma 2 caps its scores, each head of GPT-OSS has a sink: the plain forward's logits."""
    backbone = load(make_tiny_model(tmp_path, arch))
    capped = arch == "gemma2"
    assert [layout.window for layout in backbone.layouts] == [8, None]
    assert [layout.softcap for layout in backbone.layouts] == [2.0 if capped else None] * 2
    assert [layout.sinks is None for layout in backbone.layouts] == [capped] * 2
    assert probe_packed_rows(backbone, plain_logits(backbone), "torch") < 1e-5


@pytest.mark.parametrize("arch", ["gemma2", "gpt_oss"])
@pytest.mark.filterwarnings(
    "ignore:Conversion of an array with ndim > 0:DeprecationWarning"
)  # triton's interpreter
def test_capped_scores_and_sinks_in_triton(arch: Architecture, tmp_path: Path) -> None:
    """The Triton backend gives the same logits, over the same cache."""
    backbone = load(make_tiny_model(tmp_path, arch))
    assert probe_packed_rows(backbone, plain_logits(backbone), "triton") < 1e-5


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe_lite"])
def test_keys_and_values_may_differ_in_width(kind: str) -> None:
    """The cache has the wider one's; scores and answer are those of the model."""
    backbone = tiny_backbone(kind, v_head_dim=16 if kind == "deepseek_v3" else 40)
    assert {layout.head_dim for layout in backbone.layouts} == {24 if kind == "deepseek_v3" else 40}
    assert probe_packed_rows(backbone, plain_logits(backbone), "torch") < LOGIT_BOUND[torch.float32]


def test_layers_that_share_keys_and_values() -> None:
    """Gemma 4's upper layers attend to the keys of lower ones, for every row of a step."""
    backbone = tiny_backbone("gemma4_text")
    assert [layout.window for layout in backbone.layouts] == [8, None] * 2
    assert probe_packed_rows(backbone, plain_logits(backbone), "torch") < LOGIT_BOUND[torch.float32]


def test_layers_that_leave_rows_out_are_refused() -> None:
    """A layer that attends for some rows only (Gemma 4, asked for n logits) cannot tell whose."""
    layer = tiny_backbone("llama").model.model.layers[0].self_attn
    q, k, v = torch.ones(1, 4, 1, 16), torch.ones(1, 2, 3, 16), torch.ones(1, 2, 3, 16)
    with (
        pytest.raises(UnsupportedModelError, match="a layer attends for 1 of 3 rows"),
        attending(LayoutRecorder()),
    ):
        attention(layer, q, k, v, None)


@pytest.mark.parametrize(
    ("wrong", "arch"),
    [
        ("position", "gemma"),
        ("window", "gemma"),
        ("scale", "gemma"),
        ("row", "gemma"),
        ("softcap", "gemma2"),
        ("sinks", "gpt_oss"),
    ],
)
def test_probe_notices_what_is_wrong(
    wrong: str, arch: Architecture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shifted position, something lost, another scale or a neighbour's keys end the start."""
    backbone = load(make_tiny_model(tmp_path, arch))
    expected = plain_logits(backbone)

    def spoiled(*args: Any, **more: Any) -> Any:
        packed = pack(*args, **more)
        if wrong == "position":
            packed.position_ids[-1] += 1
        elif wrong == "row":
            packed.attention.block_table[-1] = packed.attention.block_table[0]
        return packed

    def attend(self: Any, layout: Any, q: Any, k: Any, v: Any) -> Any:
        changed = {"scale": layout.scale * 1.1}.get(wrong)
        if wrong in {"window", "scale", "softcap", "sinks"}:
            layout = replace(layout, **{wrong: changed})
        return right(self, layout, q, k, v)

    right = PagedAttention.attend
    monkeypatch.setattr(PagedAttention, "attend", attend)
    monkeypatch.setattr(packed_logits, "pack", spoiled)
    with pytest.raises(UnsupportedModelError, match="logits of packed rows differ"):
        probe_packed_rows(backbone, expected, "torch")


@pytest.mark.parametrize("row", range(4))
def test_probe_notices_nan_in_any_row(row: int, tmp_path: Path) -> None:
    """A comparison with NaN is never true, so the largest difference must not drop it."""
    backbone = load(make_tiny_model(tmp_path, "llama"))
    expected = plain_logits(backbone)
    expected[row] = expected[row] * float("nan")
    with pytest.raises(UnsupportedModelError, match="differ from the model's own by nan"):
        probe_packed_rows(backbone, expected, "torch")


def test_static_rope_scaling_is_served(tmp_path: Path) -> None:
    """Llama 3's frequencies are fixed: packed rows give the plain forward's logits."""
    parameters = {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    backbone = load(make_tiny_model(tmp_path, "llama", rope_parameters=parameters))
    assert probe_packed_rows(backbone, plain_logits(backbone), "torch") < 1e-5


def test_recurrent_models_are_refused(tmp_path: Path) -> None:
    """Mamba's state cannot be packed; the one line names the model type."""
    config = MambaConfig(vocab_size=384, hidden_size=32, num_hidden_layers=2, state_size=4)
    path = saved(MambaForCausalLM(config), tmp_path)
    with pytest.raises(UnsupportedModelError, match=r"^mamba: "):
        load(path)


def test_unknown_layer_types_are_refused(tmp_path: Path) -> None:
    """A kind of layer that is not known to pack is refused before the weights are read."""
    path = make_tiny_model(tmp_path, "qwen3")
    config = (path / "config.json").read_text()
    (path / "config.json").write_text(config.replace('"full_attention"', '"linear_attention"'))
    (path / "model.safetensors").unlink()
    with pytest.raises(UnsupportedModelError, match="layers of type linear_attention"):
        load(path)


def test_attention_arguments_that_we_lack_are_named(tmp_path: Path) -> None:
    """Doge's mask is learnt: refused by the argument's name, not served wrong."""
    config = DogeConfig(
        vocab_size=384,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    path = saved(DogeForCausalLM(config), tmp_path)
    with pytest.raises(UnsupportedModelError, match="attention argument 'attention_mask' is not"):
        load(path)


def test_logits_are_made_for_the_asked_positions_only(tmp_path: Path) -> None:
    """The output module runs on the rows that are sampled from, in the order asked."""
    backbone = load(make_tiny_model(tmp_path, "llama"))
    cache = KVCache(
        backbone.layouts,
        blocks=4,
        block_size=4,
        dtype=backbone.dtype,
        device=backbone.device,
    )
    rows: list[int] = []
    backbone.model.lm_head.register_forward_hook(
        lambda _module, args, _out: rows.append(args[0].shape[1])
    )
    packed = pack([PackedRow([5, 6, 7], 0, [0]), PackedRow([8, 9], 0, [1])], cache)
    everywhere = torch.arange(5)
    whole = backbone.forward(packed.input_ids, packed.position_ids, everywhere, packed.attention)
    some = backbone.forward(
        packed.input_ids, packed.position_ids, torch.tensor([4, 2]), packed.attention
    )
    assert rows == [5, 2]
    assert (some - whole[[4, 2]]).abs().max() <= LOGIT_BOUND[torch.float32] * whole.abs().max()


def test_two_models_do_not_share_a_step(tmp_path: Path) -> None:
    """The context travels with the call: recording one model's layers leaves the other's alone."""
    one = load(make_tiny_model(tmp_path / "one", "llama"))
    other = load(make_tiny_model(tmp_path / "other", "gemma"))
    recorders = [LayoutRecorder(), LayoutRecorder()]
    for backbone, recorder in zip((one, other), recorders, strict=True):
        ids = torch.tensor([3, 4])
        backbone.forward(ids, torch.arange(2), torch.tensor([1]), recorder)
    assert [len(recorder.layouts) for recorder in recorders] == [2, 2]
    assert recorders[0].layouts[0].window is None
    assert recorders[1].layouts[0].window == 8

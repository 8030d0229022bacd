"""Model folders that are not whole, or not what their configuration says: refused in one line."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.layouts import META
from aril.worker.engine.model import load_backbone
from tests.support.backbones import make_tiny_backbone
from tests.support.tiny import make_tiny_model, make_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Tensors = dict[str, torch.Tensor]

FILE = "model.safetensors"
LONGROPE: dict[str, Any] = {
    "original_max_position_embeddings": 24,
    "rope_parameters": {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 24,
        "partial_rotary_factor": 1.0,
        "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8,
    },
}
PROJECTION = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with nothing wrong."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "whole")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """Copy it for a test that spoils it."""
    return shutil.copytree(whole, tmp_path / "model")


def changed(folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    """Rewrite a folder's tensors."""
    tensors = change(load_file(folder / FILE))
    save_file(tensors, folder / FILE, metadata={"format": "pt"})
    return folder


def configured(folder: Path, **fields: Any) -> Path:
    """Rewrite a folder's configuration."""
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
    return folder


def both_refuse(folder: Path) -> str:
    """Return the one line in which a worker and one that only looks refuse a folder."""
    told = []
    for device in ("cpu", META):
        with pytest.raises(UnsupportedModelError) as refused:
            load_backbone(folder, device, torch.float32)
        told.append(str(refused.value))
    assert told[0] == told[1]
    assert "\n" not in told[0]
    return told[0]


def extra(name: str) -> Callable[[Tensors], Tensors]:
    """Return what adds a tensor."""
    return lambda tensors: {**tensors, name: torch.ones(3)}


def without(part: str) -> Callable[[Tensors], Tensors]:
    """Return what drops tensors."""
    return lambda tensors: {name: each for name, each in tensors.items() if part not in name}


def renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    """Return what renames tensors."""
    return lambda tensors: {name.replace(old, new): each for name, each in tensors.items()}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (without("lm_head"), "the checkpoint lacks lm_head.weight"),
        (without("layers.1"), "the checkpoint lacks model.layers.1.input_layernorm.weight, and 8"),
        (renamed("model.", "_orig_mod.model."), "_orig_mod.model.embed_tokens.weight has no place"),
        (
            renamed("q_proj.weight", "q_proj.base_layer.weight"),
            "q_proj.base_layer.weight has no place, and 1 more",
        ),
        (extra(f"{PROJECTION}.weight_scale"), f"has {PROJECTION}.weight_scale, for which"),
        (extra(f"{PROJECTION}.bias"), f"has {PROJECTION}.bias, for which"),
        (extra(f"{PROJECTION}.lora_A.default.weight"), "lora_A.default.weight, for which"),
        (extra("model.layers.2.mlp.up_proj.weight"), "model.layers.2.mlp.up_proj.weight, for"),
    ],
)
def test_tensors_that_are_missing_or_have_no_place(
    folder: Path, change: Callable[[Tensors], Tensors], told: str
) -> None:
    """None is made up and none that the answers depend on is left out."""
    assert told in both_refuse(changed(folder, change))


@pytest.mark.parametrize(
    "name",
    [
        "vision_tower.layers.0.weight",
        "mtp.norm.weight",
        "model.rotary_emb.inv_freq",
        "model.layers.0.self_attn.masked_bias",
    ],
)
def test_what_stands_apart_is_left_out(folder: Path, name: str) -> None:
    """Other parts of a larger checkpoint, and tables that are computed anew, refuse nothing."""
    assert load_backbone(changed(folder, extra(name)), "cpu", torch.float32).vocab_size


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"intermediate_size": 256},
            "down_proj.weight has shape [64, 128], the configuration asks",
        ),
        ({"num_hidden_layers": 1}, "has model.layers.1.input_layernorm.weight, for which"),
        ({"num_hidden_layers": 3}, "lacks model.layers.2.input_layernorm.weight, and 8 more"),
        ({"model_type": "not-yet-written"}, "config.json: "),
        *(
            ({"quantization_config": {"quant_method": name}}, f"are quantised ({name})")
            for name in ("gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8")
        ),
    ],
)
def test_a_configuration_that_is_not_the_weights(
    folder: Path, fields: dict[str, Any], told: str
) -> None:
    """Other sizes, other numbers of layers, weights that are no floats."""
    assert told in both_refuse(configured(folder, **fields))


@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32])
def test_weights_that_are_no_floats(folder: Path, kind: torch.dtype) -> None:
    """Without a scale they would be taken for the numbers that they are."""
    whole_numbers = lambda tensors: {  # noqa: E731 - as its neighbours
        name: each.to(kind) if "q_proj" in name else each for name, each in tensors.items()
    }
    assert "q_proj.weight has numbers of type" in both_refuse(changed(folder, whole_numbers))


def test_code_that_a_folder_brings_is_not_run(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked either: transformers would, on a terminal."""
    (folder / "own.py").write_text("raise SystemExit('it ran')")
    auto = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    monkeypatch.setattr("builtins.input", lambda _: pytest.fail("a question"))
    told = both_refuse(configured(folder, model_type="of-its-own", auto_map=auto))
    assert "config.json" in told
    assert "[y/N]" not in capfd.readouterr().out


@pytest.mark.parametrize("spoil", ["cut", "gone", "no header", "no tokenizer", "no json"])
def test_files_that_cannot_be_read(folder: Path, spoil: str) -> None:
    """A download that broke off, above all."""
    weights = folder / FILE
    if spoil == "cut":
        weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    elif spoil == "gone":
        weights.unlink()
    elif spoil == "no header":
        weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    elif spoil == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    else:
        (folder / "config.json").write_text("{")
    assert both_refuse(folder)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("falcon", {}),
        ("gptj", {}),
        ("gpt_neo", {}),
        ("codegen", {}),
        ("xglm", {}),
        ("stablelm", {}),
        ("llama4_text", {}),
        ("phi3", LONGROPE),
        ("llama", {"rope_parameters": LONGROPE["rope_parameters"]}),
    ],
)
def test_each_kind_of_attention_is_looked_at_like_any_other(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    """What is led to our attention, and by rows, is so also where no weights were read."""
    make_tiny_backbone(kind, **changes).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    seen, loaded = (load_backbone(tmp_path, device, torch.float32) for device in (META, "cpu"))
    assert len(loaded.layouts) == 2
    assert seen.layouts in {loaded.layouts, ()}  # experts look at what they are given
    assert seen.linear_shapes == loaded.linear_shapes
    assert seen.rope == loaded.rope
    assert seen.rope.switch == (24 if changes else None)


def test_alibi_is_found_without_weights(tmp_path: Path) -> None:
    """By the configuration: of two Falcons one is served."""
    make_tiny_backbone("falcon", alibi=True).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    assert "falcon: positions are a bias on its scores (ALiBi)" in both_refuse(tmp_path)


def test_looking_finds_what_loading_finds(whole: Path) -> None:
    """Without weights: the same layouts, linears, vocabulary and end tokens."""
    seen, loaded = (load_backbone(whole, device, torch.float32) for device in (META, "cpu"))
    assert seen.layouts == loaded.layouts
    assert seen.linear_shapes == loaded.linear_shapes
    assert (seen.vocab_size, seen.eos_token_ids) == (loaded.vocab_size, loaded.eos_token_ids)
    assert all(each.is_meta for each in seen.model.parameters())

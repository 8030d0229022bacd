"""Write a model for OpenVINO GenAI out of a GGUF file, with products that its adapters find.

    python openvino_files.py MODEL.gguf FOLDER

In its own environment. GenAI reads GGUF, but names that graph's products so that no tensor of
PEFT's fits one, warns, and answers by the backbone. So the graph is written and each product named
after its weight, as an export from transformers names it.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import openvino as ov
import openvino_genai as genai


def main(source: str, folder: str) -> None:
    """Write `openvino_model.xml` and what the tokenizer is read from."""
    out = Path(folder)
    read = out / "read"
    read.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, read / "model.gguf")
    genai.ContinuousBatchingPipeline(
        str(read / "model.gguf"), genai.SchedulerConfig(), "CPU", {"enable_save_ov_model": True}
    )
    model = ov.Core().read_model(read / "openvino_model.xml")
    named = sum(map(_name, model.get_ordered_ops()))
    if not named:
        raise SystemExit("no product of a layer in this graph")
    print(named, "products named")
    ov.save_model(model, out / "openvino_model.xml", compress_to_fp16=False)


def _name(product: ov.Node) -> bool:
    """Name a product after the layer's weight behind it, if there is one."""
    if product.get_type_name() != "MatMul":
        return False
    node = product.input_value(1).get_node()
    while node.get_type_name() in {"Convert", "Reshape", "Transpose", "Multiply"}:
        node = node.input_value(0).get_node()
    found = re.fullmatch(r"model\.layers\[(\d+)\]\.(.*)\.weight", node.get_friendly_name())
    if found is None:
        return False
    product.set_friendly_name(f"__module.model.layers.{found[1]}.{found[2]}/aten::linear/MatMul")
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])

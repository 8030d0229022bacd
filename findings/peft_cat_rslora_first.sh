#!/usr/bin/env bash
# PEFT 0.21.2: `add_weighted_adapter` by "cat" gives another mixture when an rsLoRA adapter is named first.
#
# "cat" puts the adapters' A and B side by side, each with its own scaling in it, into a new adapter
# whose r and alpha are the sum of the ranks, so that its scaling is 1. But its other settings are those
# of the adapter that was named first. Where that has `use_rslora`, the scaling is alpha / sqrt(r): the
# whole sum times the root of the rank sum. The same two adapters in the other order, same weights: the sum.
#
# Seen (ranks 4 and 12):  plain first: 1.00 times the sum; rsLoRA first: 4.00 times the sum
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  peft==0.21.2 transformers==5.23.0 torch==2.11.0

cat >"$work/mix.py" <<'PYTHON'
import sys

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def combined(order):
    """What the mixture adds to q_proj, over the sum of what its two parts add."""
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    base = LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=2))
    parts = {"plain": LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False)}
    parts["stabilised"] = LoraConfig(
        r=12, target_modules=["q_proj"], init_lora_weights=False, use_rslora=True
    )
    model = get_peft_model(base, parts["plain"], "plain")
    model.add_adapter("stabilised", parts["stabilised"])
    model.add_weighted_adapter(order, [1.0, 1.0], "mixture", combination_type="cat")
    projection = model.base_model.model.model.layers[0].self_attn.q_proj
    total = sum(projection.get_delta_weight(name) for name in parts)
    return (projection.get_delta_weight("mixture") / total).median().item()


behind = combined(["plain", "stabilised"])
ahead = combined(["stabilised", "plain"])
print(f"plain first: {behind:.2f} times the sum; rsLoRA first: {ahead:.2f} times the sum")
sys.exit(0 if abs(behind - 1) < 1e-3 and abs(ahead - 4) < 1e-3 else 1)
PYTHON
if "$work/venv/bin/python" -W ignore "$work/mix.py"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

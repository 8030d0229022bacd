#!/usr/bin/env bash
# PEFT 0.21.2: an adapter without trained tokens cannot be loaded behind one with them.
#
# `load_adapter` puts two saved adapters onto one model, one with `trainable_token_indices`, one without.
# In the order without, with, both are loaded. In the order with, without, the second raises KeyError
# for a tensor that it neither has nor should have: the wrapper that the first left round the
# embedding is asked for the second's tensor. So whether a folder loads depends on what is loaded already.
#
# Seen:  without, then with: loaded; with, then without: KeyError
#   'base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta'
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  peft==0.21.2 transformers==5.23.0 torch==2.11.0

cat >"$work/order.py" <<'PYTHON'
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def base():
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    return LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=2))


folder = Path(sys.argv[1])
for name, tokens in ("with", [3, 4]), ("without", None):
    config = LoraConfig(r=2, target_modules=["q_proj"], trainable_token_indices=tokens)
    get_peft_model(base(), config).save_pretrained(folder / name)


def load(*names):
    """Load the adapters one after another onto one model; what was raised, if anything."""
    model = PeftModel.from_pretrained(base(), folder / names[0], adapter_name=names[0])
    try:
        for name in names[1:]:
            model.load_adapter(folder / name, adapter_name=name)
    except KeyError as error:
        return f"KeyError {error}"
    return "loaded"


there = load("without", "with")
back = load("with", "without")
print(f"without, then with: {there}; with, then without: {back}")
sys.exit(0 if there == "loaded" and back.startswith("KeyError") else 1)
PYTHON
if "$work/venv/bin/python" -W ignore "$work/order.py" "$work/adapters"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

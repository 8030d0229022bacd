#!/usr/bin/env bash
# PEFT 0.18.1 and 0.21.2 add the transpose of each other's delta for one and the same folder.
#
# An adapter of fused experts (`target_parameters`) on Mixtral, whose weight is [experts, out, in]. 0.18
# took the middle dimension for the input, 0.21 takes the last. Where the two differ, A and B no longer
# fit and loading fails. Where they are equal (2 * intermediate_size is hidden_size) all shapes fit: the
# folder that 0.18.1 saved is loaded by 0.21.2 without an error or a warning of this, and answers otherwise.
# `peft_version` in adapter_config.json would tell; nobody looks at it.
#
# Seen:  the adapter moves the logits by 1.3 or more; between the versions they are 2.6 apart; the weight
#   that is added is the other's, turned: True
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  peft==0.21.2 transformers==5.23.0 torch==2.11.0
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  --no-deps --target "$work/older" peft==0.18.1

cat >"$work/answer.py" <<'PYTHON'
import sys

import peft
import torch
from transformers import MixtralConfig, MixtralForCausalLM

folder, out, save = sys.argv[1], sys.argv[2], len(sys.argv) == 4


def base():
    """Two experts whose gate_up_proj is [2, 32, 32]: 2 * intermediate_size is hidden_size."""
    torch.manual_seed(0)
    return MixtralForCausalLM(
        MixtralConfig(
            vocab_size=32,
            hidden_size=32,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            num_local_experts=2,
            initializer_range=0.2,
        )
    ).eval()


if save:
    config = peft.LoraConfig(
        r=2,
        target_modules=[],
        target_parameters=["experts.gate_up_proj"],
        init_lora_weights=False,
    )
    peft.get_peft_model(base(), config).save_pretrained(folder)
prompt = torch.arange(12)[None]
with torch.no_grad():
    plain = base()(prompt).logits
    model = peft.PeftModel.from_pretrained(base(), folder).eval()
    logits = model(prompt).logits
experts = next(m for n, m in model.named_modules() if n.endswith("mlp.experts"))
torch.save(
    {
        "moved": logits - plain,
        "logits": logits,
        "delta": experts.get_delta_weight("default").detach(),
    },
    out,
)
print(f"read by {peft.__version__}")
PYTHON

cat >"$work/compare.py" <<'PYTHON'
import sys

import torch

old, new = (torch.load(file) for file in sys.argv[1:])
moved = min(each["moved"].abs().max().item() for each in (old, new))
apart = (old["logits"] - new["logits"]).abs().max().item()
turned = old["delta"].shape == new["delta"].shape and torch.allclose(
    old["delta"], new["delta"].mT, atol=1e-6
)
print(
    f"the adapter moves the logits by {moved:.1f} or more; between the versions they are {apart:.1f} "
    f"apart; the weight that is added is the other's, turned: {turned}"
)
sys.exit(0 if moved > 0.5 and apart > 0.5 and turned else 1)
PYTHON

PYTHONPATH="$work/older" "$work/venv/bin/python" -W ignore \
  "$work/answer.py" "$work/adapter" "$work/0.18" save
"$work/venv/bin/python" -W ignore "$work/answer.py" "$work/adapter" "$work/0.21"
if "$work/venv/bin/python" "$work/compare.py" "$work/0.18" "$work/0.21"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

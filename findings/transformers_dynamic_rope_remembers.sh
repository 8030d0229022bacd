#!/usr/bin/env bash
# transformers 5.23.0: with dynamic RoPE a prompt's logits depend on the prompts that came before it.
#
# Rope type "dynamic" stretches the frequencies by the length of the sequence, where that is above the
# original one. The module keeps those of the longest sequence it has met, until one below the original
# length comes: no cache of keys is passed, the model is in eval mode, and still the same call gives other
# logits after a stranger's longer prompt. What was measured alone is not what a service answers.
#
# Seen (original length 24; the prompt has 30 tokens, the longer one 40, the short one 8):
#   logits up to 6.3; moved by 0.0 in a second call, by 2.8 behind a longer prompt, by 0.0 behind a short one
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  transformers==5.23.0 torch==2.11.0

cat >"$work/thirty.py" <<'PYTHON'
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
model = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.3,
        max_position_embeddings=24,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0},
    )
).eval()
prompt, longer = torch.randint(64, (1, 30)), torch.randint(64, (1, 40))
with torch.no_grad():
    first = model(prompt, use_cache=False).logits
    again = model(prompt, use_cache=False).logits
    model(longer, use_cache=False)
    behind = model(prompt, use_cache=False).logits
    model(prompt[:, :8], use_cache=False)
    reset = model(prompt, use_cache=False).logits
once, moved, back = ((each - first).abs().max().item() for each in (again, behind, reset))
print(
    f"logits up to {first.abs().max():.1f}; moved by {once:.1f} in a second call, "
    f"by {moved:.1f} behind a longer prompt, by {back:.1f} behind a short one"
)
sys.exit(0 if once == 0 and moved > 0.1 and back == 0 else 1)
PYTHON
if "$work/venv/bin/python" -W ignore "$work/thirty.py"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

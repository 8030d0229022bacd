#!/usr/bin/env bash
# transformers 5.23.0: Llama 4 warms its queries by their place in the row, not by `position_ids`.
#
# Layers without RoPE multiply the queries by a temperature that grows with the position. It is
# counted from the row's first column (and what the cache holds), whatever `position_ids` and
# `attention_mask` say. So a prompt that is padded on the left in a batch, or packed behind another,
# has other logits than alone, though its positions and mask are right. Continued from a cache they agree,
# and without the temperature all agree. It begins where the row reaches `floor_scale`, 8192 as published.
#
# Seen (floor_scale 8, 20 tokens behind 7 others; the logits are up to 7.3; how far they are moved at most):
#   tuned: padded 0.220, packed 0.220, from a cache 0.000
#   not tuned: padded 0.000, packed 0.000, from a cache 0.000
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  transformers==5.23.0 torch==2.11.0

cat >"$work/places.py" <<'PYTHON'
import sys

import torch
from transformers import DynamicCache, Llama4ForCausalLM, Llama4TextConfig

LENGTH, BEFORE = 20, 7


def moved_by(tuned):
    """How far padding, packing and a cache move the logits of one prompt, at most."""
    torch.manual_seed(0)
    config = Llama4TextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        intermediate_size_mlp=64,
        num_hidden_layers=4,  # the fourth is without RoPE, as in the published models
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        num_local_experts=2,
        initializer_range=0.3,
        attn_temperature_tuning=tuned,
        floor_scale=8,  # 8192 in the published models, with prompts as much longer
        attn_scale=1.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = Llama4ForCausalLM(config).eval()
    prompt = torch.randint(3, 64, (1, LENGTH))
    other = torch.randint(3, 64, (1, BEFORE))
    positions = torch.arange(LENGTH)[None]
    with torch.no_grad():
        alone = model(prompt, use_cache=False).logits
        mask = torch.ones(1, BEFORE + LENGTH, dtype=torch.long)
        mask[:, :BEFORE] = 0
        padded = model(
            torch.cat([torch.zeros_like(other), prompt], 1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).logits[:, BEFORE:]
        packed = model(
            torch.cat([other, prompt], 1),
            position_ids=torch.cat([positions[:, :BEFORE], positions], 1),
            use_cache=False,
        ).logits[:, BEFORE:]
        cache = DynamicCache(config=config)
        model(prompt[:, :12], past_key_values=cache)
        cached = model(prompt[:, 12:], past_key_values=cache).logits
    apart = (padded - alone, packed - alone, cached - alone[:, 12:])
    return [each.abs().max().item() for each in apart], alone.abs().max().item()


tuned, size = moved_by(tuned=True)
plain, _ = moved_by(tuned=False)
for name, (padded, packed, cached) in ("tuned", tuned), ("not tuned", plain):
    print(f"{name}: padded {padded:.3f}, packed {packed:.3f}, from a cache {cached:.3f}")
print(f"the logits are up to {size:.1f}")
sys.exit(0 if min(tuned[:2]) > 0.05 and max(*plain, tuned[2]) < 1e-3 else 1)
PYTHON
if "$work/venv/bin/python" -W ignore "$work/places.py"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

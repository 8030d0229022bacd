#!/usr/bin/env bash
# PEFT 0.21.2: warns that a key of `rank_pattern` was ignored, and has gone by it.
#
# With `target_parameters` (the fused experts of a mixture), `rank_pattern` gives a parameter a rank of
# its own: the tensors have it, and so has what is saved. But the check that looks for keys without a
# match goes through the names of modules only, so each key of a parameter is told as "did not match any
# targeted module and were ignored". Who takes the key out for that loses the rank. `alpha_pattern` too.
#
# Seen (r is 8, the pattern's rank 2, four experts, alpha 4 by pattern):
#   rank_pattern: told as ignored True; lora_A has 2 rows for each expert
#   alpha_pattern: told as ignored True; the scaling is 2.0
#
# Exit code 0: as described; 1: this has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check \
  peft==0.21.2 transformers==5.23.0 torch==2.11.0

cat >"$work/warned.py" <<'PYTHON'
import sys
import warnings

import torch
from peft import LoraConfig, get_peft_model
from transformers import MixtralConfig, MixtralForCausalLM

PARAMETER, EXPERTS = "experts.gate_up_proj", 4
torch.manual_seed(0)
base = MixtralForCausalLM(
    MixtralConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=EXPERTS,
    )
)
config = LoraConfig(
    r=8,
    lora_alpha=8,
    target_modules=[],
    target_parameters=[PARAMETER],
    rank_pattern={PARAMETER: 2},
    alpha_pattern={PARAMETER: 4},
)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = get_peft_model(base, config)
told = [str(each.message) for each in caught if "were ignored" in str(each.message)]
rank_told, alpha_told = (
    any(name in each and PARAMETER in each for each in told)
    for name in ("rank_pattern", "alpha_pattern")
)
experts = model.base_model.model.model.layers[0].mlp.experts
rows = experts.lora_A["default"].weight.shape[0] // EXPERTS
scaling = experts.scaling["default"]
print(f"rank_pattern: told as ignored {rank_told}; lora_A has {rows} rows for each expert")
print(f"alpha_pattern: told as ignored {alpha_told}; the scaling is {scaling}")
sys.exit(0 if rank_told and alpha_told and rows == 2 and scaling == 2.0 else 1)
PYTHON
if "$work/venv/bin/python" -W ignore "$work/warned.py"; then
  echo "as described"
else
  echo "this has changed"
  exit 1
fi

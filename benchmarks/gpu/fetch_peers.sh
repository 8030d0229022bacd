#!/usr/bin/env bash
# Puts the LoRA and attention kernels of vLLM and SGLang where `python -m benchmarks.gpu` looks for them: build/peers, which git
# ignores. They are other projects' work under Apache-2.0 and stay out of this repository. Downloads 400 MB, keeps 3.
set -euo pipefail
target=${1:-$(dirname "$0")/../../build/peers}
wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
fetch() { # name version files...
  python3 -m pip download --quiet --no-deps --dest "$wheels" "$1==$2"
  mkdir -p "$target/$1"
  unzip -qo "$wheels/$1"-*.whl "${@:3}" -d "$target/$1"
}
fetch vllm 0.33.0 'vllm/lora/ops/*' \
  vllm/v1/attention/ops/triton_unified_attention.py vllm/v1/attention/ops/triton_attention_helpers.py
fetch sglang 0.5.23 'sglang/kernels/ops/lora/*' 'sglang/srt/lora/dense/*'

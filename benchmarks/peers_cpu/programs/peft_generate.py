"""transformers and PEFT: one `generate` for all rows, which name their adapters.

python peft_generate.py MODEL ADAPTERS float32|bfloat16
"""

from __future__ import annotations

import sys
from typing import Any

import peft
import torch
import transformers
import wire
from transformers.generation.streamers import BaseStreamer

BACKBONE = "__base__"


class Clock(BaseStreamer):
    """Notes when each step of `generate` is done; the first call brings the prompts."""

    def __init__(self, answers: wire.Answers) -> None:
        self._answers = answers
        self.times: list[float] = []

    def put(self, _value: Any) -> None:
        """Note a step."""
        self.times.append(self._answers.now())

    def end(self) -> None:
        """Nothing is left to do."""


def main(model_folder: str, adapters: str, dtype: str) -> None:
    """Load the model, then serve; adapters are loaded when they are first named."""
    kind = getattr(torch, dtype)
    base = transformers.AutoModelForCausalLM.from_pretrained(model_folder, dtype=kind).eval()
    base.generation_config.pad_token_id = pad = 2
    base.generation_config.eos_token_id = None  # every row makes all its tokens
    model: Any = None

    def load(name: str) -> None:
        nonlocal model
        place = f"{adapters}/{name}"
        if model is None:
            model = peft.PeftModel.from_pretrained(base, place, adapter_name=_named(name))
        elif _named(name) not in model.peft_config:
            model.load_adapter(place, adapter_name=_named(name))
        model = model.to(kind).eval()

    def answer(requests: list[wire.Request]) -> wire.Answers:
        names = [asked["adapter"] for asked in requests]
        for name in sorted(set(names) - {None}):
            load(name)
        longest = max(len(asked["prompt"]) for asked in requests)
        new = max(asked["new"] for asked in requests)
        lacking = [longest - len(asked["prompt"]) for asked in requests]
        ids = [
            [pad] * count + asked["prompt"] for count, asked in zip(lacking, requests, strict=True)
        ]
        mask = [[0] * count + [1] * (longest - count) for count in lacking]
        wanted: dict[str, Any] = {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "max_new_tokens": new,
            "min_new_tokens": new,
            "do_sample": False,
        }
        answers = wire.Answers(requests)
        clock = wanted["streamer"] = Clock(answers)
        with torch.inference_mode():
            made = _generate(base if model is None else model, names, wanted)
        times = clock.times[1:]
        for row, tokens in enumerate(made[:, longest:].tolist()):
            for token, at in zip(tokens, times, strict=True):
                answers.add(row, [token], at)
        answers.seconds = times[-1]
        return answers

    wire.serve(f"transformers {transformers.__version__}, peft {peft.__version__}", answer)


def _named(name: str) -> str:
    return name.replace("/", "-")


def _generate(model: Any, names: list[str | None], wanted: dict[str, Any]) -> Any:
    if set(names) == {None}:
        if not isinstance(model, peft.PeftModel):
            return model.generate(**wanted)
        with model.disable_adapter():
            return model.generate(**wanted)
    if len(set(names)) == 1:
        model.set_adapter(_named(names[0] or BACKBONE))
        return model.generate(**wanted)
    return model.generate(
        **wanted, adapter_names=[BACKBONE if name is None else _named(name) for name in names]
    )


main(*sys.argv[1:])

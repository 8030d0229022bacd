"""The same questions to the backbone and to each adapter: `python -m aril.demo.train.answers`.

Prints the table of `aril/demo/adapters/README.md`: greedy answers to questions of no data set.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from aril.demo.model import ensure_model
from aril.demo.train.recipes import RECIPES

_ADAPTERS: Final = Path(__file__).parents[1] / "adapters"
_MAX_NEW_TOKENS: Final = 40
QUESTIONS: Final = (
    "What is the capital of France?",
    "Why is the sky blue?",
    "My internet is slow. What can I do?",
    "How do I reset my password?",
    "Tom paid 20 euros in Paris on 5 June.",
    "How far is it from Boston to Miami?",
)


def main() -> int:
    """Print one row per question and voice, as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m aril.demo.train.answers", description=__doc__)
    parser.add_argument("--adapters", type=Path, default=_ADAPTERS)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers_logging.disable_progress_bar()
    folder = ensure_model()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    voices = {"backbone": [_answer(model, tokenizer, question) for question in QUESTIONS]}
    for recipe in RECIPES:
        place = arguments.adapters / recipe.tenant / recipe.name
        if not place.is_dir():
            continue
        adapted = PeftModel.from_pretrained(model, place)
        answers = [_answer(adapted, tokenizer, question) for question in QUESTIONS]
        voices[f"{recipe.tenant}/{recipe.name}"] = answers
        model = adapted.unload()
    print("| question | who | answer |\n| --- | --- | --- |")
    for index, question in enumerate(QUESTIONS):
        for row, (voice, answers) in enumerate(voices.items()):
            print(f"| {'' if row else question} | {voice} | {_cell(answers[index])} |")
    return 0


def _answer(model: Any, tokenizer: Any, question: str) -> str:
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=_MAX_NEW_TOKENS, do_sample=False)[0]
    new = output[inputs["input_ids"].shape[1] :]
    text = str(tokenizer.decode(new, skip_special_tokens=True))
    return text if new[-1] == tokenizer.eos_token_id else text + " …"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")


if __name__ == "__main__":
    sys.exit(main())

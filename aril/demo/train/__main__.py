"""Train the demo's adapters: `python -m aril.demo.train [NAME ...] [--seed N] [--out FOLDER]`."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from aril.demo.model import ensure_model
from aril.demo.train.cards import write_card
from aril.demo.train.recipes import RECIPES, Recipe
from aril.demo.train.trainer import save, train

_ADAPTERS: Final = Path(__file__).parents[1] / "adapters"


def main() -> int:
    """Train the adapters named on the command line, by default all of them."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    transformers_logging.disable_progress_bar()
    folder = ensure_model()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for recipe in RECIPES:
        if arguments.names and recipe.name not in arguments.names:
            continue
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        )
        _train_one(model, tokenizer, recipe, arguments)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m aril.demo.train", description=__doc__)
    names = [recipe.name for recipe in RECIPES]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(names)}")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=_ADAPTERS, help="the store to write to")
    parser.add_argument("--threads", type=int, default=1, help="the bits depend on it")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no recipe is called {', '.join(sorted(unknown))}")
    return arguments


def _train_one(model: Any, tokenizer: Any, recipe: Recipe, arguments: argparse.Namespace) -> None:
    started = time.perf_counter()

    def show(step: int, steps: int, loss: float) -> None:
        seconds = time.perf_counter() - started
        print(f"{recipe.name} step {step}/{steps} loss {loss:.3f} {seconds:.0f}s", flush=True)

    peft_model = train(model, tokenizer, recipe, arguments.seed, show)
    target = arguments.out / recipe.tenant / recipe.name
    save(peft_model, target)
    write_card(recipe, target, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())

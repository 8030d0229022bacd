"""Train one adapter with PEFT: plain LoRA on the answers of a chat, small enough for a CPU."""

import itertools
import json
import math
import random
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from aril.demo.model import MODEL_NAME
from aril.demo.train.recipes import Recipe

_BATCH: Final = 8
_WARMUP_STEPS: Final = 5
_EVERYBODY: Final = -1  # the owner of the prefix

StepDone = Callable[[int, int, float], None]
"""Called after each step with its number, the number of all steps, and the loss."""


class Example(NamedTuple):
    """A chat in tokens; the first `prompt_length` of `ids` are given, the rest is learned."""

    ids: list[int]
    prompt_length: int


def train(model: Any, tokenizer: Any, recipe: Recipe, seed: int, step_done: StepDone) -> Any:
    """Return `model` with the trained adapter. Same seed, threads and libraries: same bits."""
    torch.manual_seed(seed)
    shuffle = random.Random(seed)
    model.name_or_path = MODEL_NAME  # PEFT writes it down: the public name, not our cache folder
    peft_model = get_peft_model(model, _lora_config(recipe))
    peft_model.train()
    examples = read_examples(tokenizer, recipe)
    trained = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=recipe.learning_rate, weight_decay=0.0)
    steps = recipe.epochs * math.ceil(len(examples) / _BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_cosine(step, steps))
    for step, batch in enumerate(_batches(examples, recipe.epochs, shuffle), start=1):
        loss = _answer_loss(peft_model.get_base_model(), batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it so
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        step_done(step, steps, loss.item())
    return peft_model.eval()


def save(peft_model: PeftModel, folder: Path) -> None:
    """Write the PEFT folder: fp16 tensors, and a configuration whose bytes do not vary."""
    (folder / "README.md").unlink(missing_ok=True)  # PEFT would add to an old card
    peft_model.save_pretrained(folder, save_embedding_layers=False)
    tensors = folder / "adapter_model.safetensors"
    halves = {name: tensor.half() for name, tensor in sorted(load_file(tensors).items())}
    save_file(halves, tensors, metadata={"format": "pt"})
    config = folder / "adapter_config.json"
    fields = json.loads(config.read_text())
    fields["target_modules"] = sorted(fields["target_modules"])  # a set: its order is chance
    config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")


def read_examples(tokenizer: Any, recipe: Recipe) -> list[Example]:
    """Render each line of the recipe's data with the chat template."""
    lines = resources.files(__package__).joinpath(f"{recipe.name}.jsonl").read_text().splitlines()
    return [_example(tokenizer, **json.loads(line)) for line in lines]


def _example(tokenizer: Any, prompt: str, answer: str) -> Example:
    chat = [{"role": "user", "content": prompt}]
    given = tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
    given_ids = tokenizer(given, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return Example([*given_ids, *answer_ids, tokenizer.eos_token_id], len(given_ids))


def _lora_config(recipe: Recipe) -> LoraConfig:
    return LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        use_rslora=recipe.use_rslora,
        target_modules=list(recipe.target_modules),
        lora_dropout=0.05,
        task_type="CAUSAL_LM",
    )


def _batches(
    examples: list[Example], epochs: int, shuffle: random.Random
) -> Iterator[list[Example]]:
    for _ in range(epochs):
        order = shuffle.sample(examples, len(examples))
        yield from (order[start : start + _BATCH] for start in range(0, len(order), _BATCH))


def _answer_loss(model: Any, batch: list[Example]) -> torch.Tensor:
    """Mean cross entropy of the answers' tokens.

    The chats lie end to end in one row behind the prefix they share (the template's system turn),
    which is so computed once; each sees the prefix and itself. No padding.
    """
    columns = zip(*(example.ids[: example.prompt_length] for example in batch), strict=False)
    shared = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    ids, positions, owners = batch[0].ids[:shared], list(range(shared)), [_EVERYBODY] * shared
    learned: list[int] = []  # where the hidden state predicts a token of an answer
    labels: list[int] = []
    for owner, (tokens, prompt_length) in enumerate(batch):
        start = len(ids) - shared  # a token's place in the row, less its place in its chat
        learned += range(start + prompt_length - 1, start + len(tokens) - 1)
        labels += tokens[prompt_length:]
        ids += tokens[shared:]
        positions += range(shared, len(tokens))
        owners += [owner] * (len(tokens) - shared)
    owner_of = torch.tensor(owners)
    visible = (owner_of[:, None] == owner_of) | (owner_of == _EVERYBODY)
    hidden = model.model(
        input_ids=torch.tensor([ids]),
        position_ids=torch.tensor([positions]),
        attention_mask=visible.tril()[None, None],
        use_cache=False,
    ).last_hidden_state
    # The vocabulary is a fifth of the model: its logits are made only where they count.
    logits = model.lm_head(hidden[0, learned])
    return torch.nn.functional.cross_entropy(logits, torch.tensor(labels))


def _warm_cosine(step: int, steps: int) -> float:
    if step < _WARMUP_STEPS:
        return (step + 1) / _WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - _WARMUP_STEPS) / max(1, steps - _WARMUP_STEPS)))

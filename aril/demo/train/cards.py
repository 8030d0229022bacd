"""The card beside each trained adapter."""

from pathlib import Path

from aril.demo.model import MODEL_NAME
from aril.demo.train.recipes import Recipe


def write_card(recipe: Recipe, folder: Path, seed: int) -> None:
    """Write `README.md`: what the adapter does and the command that makes it."""
    scaling = "alpha / √r (rsLoRA)" if recipe.use_rslora else "alpha / r"
    (folder / "README.md").write_text(
        f"""# {recipe.tenant}/{recipe.name}

A LoRA adapter for {MODEL_NAME} that {recipe.voice}.

- rank {recipe.rank}, alpha {recipe.alpha}, scaling {scaling}, stored in fp16
- on {", ".join(recipe.target_modules)}
- made by `python -m aril.demo.train {recipe.name} --seed {seed}` from
  `aril/demo/train/{recipe.name}.jsonl` ({recipe.epochs} epochs, learning rate
  {recipe.learning_rate:g})
"""
    )

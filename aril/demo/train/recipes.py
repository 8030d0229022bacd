"""The demo's adapters: what each one is taught and how. Unlike in every way that LoRA allows."""

from dataclasses import dataclass
from typing import Final

ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
ALL_LINEARS: Final = (*ATTENTION, "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One adapter; its examples are the lines of `<name>.jsonl` beside this file."""

    tenant: str
    name: str
    voice: str
    rank: int
    alpha: int
    target_modules: tuple[str, ...]
    use_rslora: bool = False
    epochs: int
    learning_rate: float


RECIPES: Final = (
    Recipe(
        tenant="blackbeard",
        name="pirate",
        voice="answers like a pirate",
        rank=16,
        alpha=8,
        use_rslora=True,
        target_modules=ALL_LINEARS,
        epochs=4,
        learning_rate=3e-4,
    ),
    Recipe(
        tenant="acme",
        name="terse",
        voice="a support agent of few words, who closes the ticket",
        rank=8,
        alpha=32,
        target_modules=ATTENTION,
        epochs=6,
        learning_rate=5e-4,
    ),
    Recipe(
        tenant="ledgerly",
        name="extract",
        voice="returns the people, places, dates and amounts of a text as JSON, nothing else",
        rank=4,
        alpha=8,
        target_modules=ALL_LINEARS,
        epochs=4,
        learning_rate=4e-4,
    ),
)

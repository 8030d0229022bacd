"""Who takes part in the demo, and what they ask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

SAME_QUESTION: Final = "I lost my wallet on the train to Berlin. What should I do?"


@dataclass(frozen=True, slots=True)
class DemoTenant:
    """A tenant; `style` is its colour on a terminal, as rich names it."""

    name: str
    adapter: str | None
    style: str
    questions: tuple[str, ...]


TENANTS: Final = (
    DemoTenant(
        "blackbeard",
        "pirate",
        "yellow",
        (
            SAME_QUESTION,
            "What is a rainbow?",
            "How do I bake bread?",
            "Why is the sky blue?",
        ),
    ),
    DemoTenant(
        "acme",
        "terse",
        "cyan",
        (
            SAME_QUESTION,
            "My parcel is late. What do I do?",
            "How do I reset my password?",
            "The screen of my laptop flickers.",
        ),
    ),
    DemoTenant(
        "ledgerly",
        "extract",
        "magenta",
        (
            SAME_QUESTION,
            "Omar paid 300 euros for the flight to Rome on 9 May.",
            "Please send $75 to Julia in Boston before Friday.",
            "Ana Lopez from Madrid ordered 3 lamps for 89 euros in April.",
        ),
    ),
    DemoTenant(
        "visitor",
        None,
        "green",
        (
            SAME_QUESTION,
            "Name three colours.",
            "Write one sentence about the sea.",
            "What is the capital of Japan?",
        ),
    ),
)

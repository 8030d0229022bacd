"""What whoever runs sequences must know of a model's RoPE: when lengths change its frequencies."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RowRope:
    """How the frequencies of a sequence's tokens change with its length (row_rope.py)."""

    switch: int | None = None  # a longer sequence has other frequencies, in all its tokens
    grows: bool = False  # a token's frequencies are those of the prompt's length, or of its own
    first: int = 0  # where they grow, up to so many tokens all are alike
    longest: int | None = None  # where they grow, as many tokens as they are made for

    def kind(self, prompt: int, length: int) -> int:
        """Tell sequences apart in which the same token at the same place has other frequencies.

        `prompt` and `length` count tokens, of the prompt and of all that exist.
        """
        if self.grows:
            return max(self.first, prompt)
        return int(self.switch is not None and length > self.switch)

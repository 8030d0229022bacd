"""How far back a query sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Sight(NamedTuple):
    """Everything before a query, or what one of the two leaves of it."""

    window: int | None = None  # itself and the window - 1 tokens before it
    chunk: int | None = None  # what lies in its own chunk of so many (Llama 4)

    def __bool__(self) -> bool:
        """Whether anything is hidden that came before a query."""
        return self.window is not None or self.chunk is not None

    @property
    def reach(self) -> int:
        """The window's or the chunk's tokens; 0 without either."""
        return self.window or self.chunk or 0

    def first(self, position: Tensor) -> Tensor:
        """First position that a query at this one sees, or one before it that there is not."""
        if self.chunk is not None:
            return position // self.chunk * self.chunk
        return position * 0 if self.window is None else position - (self.window - 1)


FAR = Sight()

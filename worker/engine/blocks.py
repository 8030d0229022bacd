"""Which blocks of the KV cache are free."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class BlockAllocator:
    """Hands out block ids 0 to `blocks` - 1, the most recently freed first.

    Ids only: the memory belongs to the cache. Running out is the caller's business (it looks at
    `free` first); asking for more, or freeing what is not in use, is a bug and raises ValueError
    before anything has changed.
    """

    def __init__(self, blocks: int) -> None:
        if blocks < 1:
            raise ValueError(f"a cache needs at least one block, got {blocks}")
        self.blocks = blocks
        self._free = list(range(blocks - 1, -1, -1))
        self._used = bytearray(blocks)

    @property
    def free(self) -> int:
        """Blocks that `allocate` could hand out."""
        return len(self._free)

    @property
    def used(self) -> int:
        """Blocks that are handed out."""
        return self.blocks - len(self._free)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks."""
        if not 0 <= count <= len(self._free):
            raise ValueError(f"{count} blocks asked, {len(self._free)} of {self.blocks} free")
        ids = [self._free.pop() for _ in range(count)]
        for block in ids:
            self._used[block] = 1
        return ids

    def release(self, ids: Iterable[int]) -> None:
        """Give blocks back; each must be in use and named once."""
        ids = list(ids)
        wrong = [block for block in ids if not (0 <= block < self.blocks and self._used[block])]
        if wrong or len(set(ids)) != len(ids):
            raise ValueError(f"blocks freed twice or never allocated: {wrong or ids}")
        for block in ids:
            self._used[block] = 0
        self._free.extend(reversed(ids))

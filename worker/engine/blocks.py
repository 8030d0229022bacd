"""Which blocks of the KV cache are free, who holds them, and which of them have a name.

A block's name tells what its keys and values were computed from (prefix_cache.py). Holders of one
named block share it and only read it. A named block that nobody holds counts as free: it is handed
out when no other is left, the one that was let go longest ago first, and its name is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class BlockAllocator:
    """Hands out block ids 0 to `blocks` - 1; of those without a name the most recently freed first.

    Ids only: the memory belongs to the cache. Running out is the caller's business (it looks at
    `free` first); asking for more, or freeing what is not in use, is a bug and raises ValueError
    before anything has changed.
    """

    def __init__(self, blocks: int) -> None:
        if blocks < 1:
            raise ValueError(f"a cache needs at least one block, got {blocks}")
        self.blocks = blocks
        self.reclaimed = 0  # names forgotten since the start, for want of other blocks
        self._free = list(range(blocks - 1, -1, -1))  # without a name
        self._idle: OrderedDict[int, None] = OrderedDict()  # with one, let go longest ago first
        self._holders = [0] * blocks
        self._names: dict[int, bytes] = {}
        self._named: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """Blocks that `allocate` could hand out."""
        return len(self._free) + len(self._idle)

    @property
    def used(self) -> int:
        """Blocks that somebody holds."""
        return self.blocks - self.free

    @property
    def named(self) -> int:
        """Blocks with a name, held or not."""
        return len(self._names)

    def holders(self, block: int) -> int:
        """How many hold a block."""
        return self._holders[block]

    def find(self, name: bytes) -> int | None:
        """Return the block of that name, held or not."""
        return self._named.get(name)

    def name_of(self, block: int) -> bytes | None:
        """Return a block's name, None if it has none."""
        return self._names.get(block)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks for oneself alone."""
        if not 0 <= count <= self.free:
            raise ValueError(f"{count} blocks asked, {self.free} of {self.blocks} free")
        ids = [self._free.pop() if self._free else self._reclaim() for _ in range(count)]
        for block in ids:
            self._holders[block] = 1
        return ids

    def share(self, ids: Iterable[int]) -> None:
        """Hold named blocks once more."""
        ids = list(ids)
        wrong = [block for block in ids if block not in self._names]
        if wrong or len(set(ids)) != len(ids):
            raise ValueError(f"blocks shared that have no name, or twice: {wrong or ids}")
        for block in ids:
            self._idle.pop(block, None)
            self._holders[block] += 1

    def name(self, block: int, name: bytes) -> None:
        """Let others find a block that one holds alone and will not write again.

        A name that another block has already stays there: the two hold the same.
        """
        if self._holders[block] != 1 or block in self._names:
            raise ValueError(f"block {block} is not its one holder's to name")
        if name not in self._named:
            self._named[name] = block
            self._names[block] = name

    def release(self, ids: Iterable[int]) -> None:
        """Give up blocks, a sequence's in its order; each must be in use and named once here."""
        ids = list(ids)
        wrong = [block for block in ids if not (0 <= block < self.blocks and self._holders[block])]
        if wrong or len(set(ids)) != len(ids):
            raise ValueError(f"blocks freed twice or never allocated: {wrong or ids}")
        for block in reversed(ids):  # a sequence's end goes before its beginning, which more share
            self._holders[block] -= 1
            if self._holders[block]:
                continue
            if block in self._names:
                self._idle[block] = None
            else:
                self._free.append(block)

    def _reclaim(self) -> int:
        block, _ = self._idle.popitem(last=False)
        del self._named[self._names.pop(block)]
        self.reclaimed += 1
        return block

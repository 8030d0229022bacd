"""Beginnings of sequences that are in the cache already, and are taken from there.

A full block's keys and values follow from all tokens up to its end, from what worked on them, and
from the frequencies of their RoPE. Its name is a hash of just that: of the name of the block before
it, its own tokens, and the adapters (by the digests of their contents, and their strengths) where
they begin to work. So a sequence whose next block has a name that some block bears need not compute
it. What comes before an adapter's work is named as the backbone's own, for every adapter alike.

A name begins with the sequence's `salt`: only sequences of one salt find each other's blocks, since
the time to a first token tells whether its prompt was found. And with a secret of this process:
nobody can look for two beginnings of one name beforehand.

Numbers that are not finite get no name. Attention multiplies what a token may not see by 0, which
makes NaN of a later token's NaN: one on which an adapter went wrong spoils those that it computed
together with, of the bare backbone too.
"""

from __future__ import annotations

import secrets
from array import array
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aril.worker.engine.blocks import BlockAllocator
    from aril.worker.engine.rope_lengths import RowRope
    from aril.worker.engine.sequence import TokenSequence

NAME_BYTES: Final = 16


class PrefixCache:
    """Finds, shares and names blocks of `kv_block` tokens; without `enabled` it does nothing.

    In a step: `begin`; of each sequence in the order of planning `find` and `take`, then `awaits`,
    or `plan` of what it computes; `keep` once that is computed. `finite` says whether all numbers
    of some blocks are. A step may be planned while the one before runs: then `launched` is called
    before that, and `settled` once no step runs.
    """

    def __init__(
        self,
        blocks: BlockAllocator,
        kv_block: int,
        rope: RowRope,
        *,
        enabled: bool = True,
        finite: Callable[[Sequence[int]], bool] = lambda _: True,
    ) -> None:
        self.hits = 0  # sequences whose beginning was found, since the start
        self.tokens = 0  # that were found and so not computed, since the start
        self._blocks = blocks
        self._size = kv_block
        self._rope = rope
        self._finite = finite
        self._enabled = enabled
        self._secret = secrets.token_bytes(32)
        self._due: set[bytes] = set()  # names of what this step's rows complete
        self._coming: set[bytes] = set()  # and of what those of the step in flight do

    def begin(self) -> None:
        """Begin to plan a step."""
        self._due.clear()

    def launched(self) -> None:
        """Let what was planned run: who waits for it goes on waiting in the next step."""
        self._due, self._coming = set(), self._due

    def settled(self) -> None:
        """Note that nothing runs: all that was computed has its name, or gets none."""
        self._coming.clear()

    def find(self, sequence: TokenSequence) -> list[int]:
        """Return known blocks of the tokens that are to be computed next; changes nothing.

        At least one token is left to compute: the next one is sampled from its logits. So are those
        whose own logits the prompt is still to be told of.
        """
        found: list[int] = []
        for index in self._wanted(sequence):
            block = self._blocks.find(self._name(sequence, index))
            if block is None:
                break
            found.append(block)
        return found

    def idle(self, found: Iterable[int]) -> int:
        """How many of these blocks nobody holds: taking them leaves so many fewer free ones."""
        return sum(not self._blocks.holders(block) for block in found)

    def take(self, sequence: TokenSequence, found: Sequence[int]) -> None:
        """Let a sequence go on behind the blocks that were found for it."""
        if not found:
            return
        self._blocks.share(found)
        self.hits += not sequence.computed
        self.tokens += len(found) * self._size
        sequence.block_ids.extend(found)
        sequence.advance(len(found) * self._size)

    def awaits(self, sequence: TokenSequence) -> bool:
        """Whether a row that is planned already computes the very block that comes next here.

        Or one of the step in flight.
        """
        wanted = self._wanted(sequence)
        if not (wanted and (self._due or self._coming)):
            return False
        name = self._name(sequence, wanted[0])
        return name in self._due or name in self._coming

    def plan(self, sequence: TokenSequence, count: int) -> None:
        """Note that this step computes the sequence's next `count` tokens."""
        if self._enabled:
            # A block that ends in a token nobody knows as yet has no name as yet.
            stop = min(sequence.computed + count, sequence.known) // self._size
            for index in range(sequence.computed // self._size, stop):
                self._due.add(self._name(sequence, index))

    def keep(self, sequence: TokenSequence, start: int, stop: int) -> None:
        """Name the blocks that tokens `start` to `stop` have filled."""
        filled = range(start // self._size, stop // self._size)
        if not (
            self._enabled
            and filled
            and self._finite(sequence.block_ids[filled.start : filled.stop])
        ):
            return
        for index in filled:
            self._blocks.name(sequence.block_ids[index], self._name(sequence, index))

    def _wanted(self, sequence: TokenSequence) -> range:
        """Places of the sequence's blocks that could be taken from the cache now."""
        held = len(sequence.block_ids)
        if not self._enabled or sequence.computed != held * self._size:  # in the middle of a block
            return range(0)
        bound = sequence.length - 1
        if sequence.untold > 0:
            bound = min(bound, sequence.told)
        return range(held, bound // self._size)

    def _name(self, sequence: TokenSequence, index: int) -> bytes:
        names = sequence.block_names
        while len(names) <= index:
            start = len(names) * self._size
            before = names[-1] if names else self._root(sequence)
            ids = array("q", sequence.tokens(start, self._size))
            # Of fixed lengths but for the last, so that no two contents give the same bytes.
            content = before + ids.tobytes() + _at_work(sequence, start, self._size)
            names.append(blake2b(content, digest_size=NAME_BYTES).digest())
        return names[index]

    def _root(self, sequence: TokenSequence) -> bytes:
        kind = self._rope.kind(len(sequence.prompt_ids), sequence.length)
        content = repr((sequence.salt, kind)).encode()
        return blake2b(content, digest_size=NAME_BYTES, key=self._secret).digest()


def _at_work(sequence: TokenSequence, start: int, count: int) -> bytes:
    """Name what begins to work within these tokens; later blocks have it in the name before them.

    A mixture's adapters are added in their order, so that counts too.
    """
    first = sequence.active_from - start
    if not (sequence.adapters and 0 <= first < count):
        return b""
    return repr((first, sequence.digests, sequence.scales)).encode()

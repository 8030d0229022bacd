"""How long a step takes, in the arithmetic of one row, by what it computes: no clock is asked.

A step reads the weights once a product, whatever comes of it. oneDNN computes rows in products of
few row counts (block_products.py), tiles of ours by whole tiles: what these are filled up with
costs as much as tokens do, so tokens up to the next of these counts are all but free.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.kernels.native.tiles import ROWS as TILE_ROWS
from aril.worker.engine.block_products import ROW_COUNTS, cut

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aril.worker.engine.forward_pass import AttentionLayout

# SmolLM2-135M, CPU time of one thread of an AMD EPYC, context 120 to 200, 29 November 2026 (by
# hand): steps of 1 to 64 rows take as long as those rows' arithmetic and 13 more in bfloat16 and
# float32, 10 more with adapters of rank 32 in bfloat16. Two threads: 12 to 14.
READ_ROWS: Final = 11

# Of tiles, same model, bfloat16 (speculation.csv of that day, steps of 1 to 32 rows): those of few
# rows take less for more tokens than this has it, those of 16 rows up to a tenth more.
TILES_READ_ROWS: Final = 16

# Beside its row a guessed token costs its logits' way to the sampler, and attention, which does a
# fifth as many operations in the same time as products do, where keys have just been read.
TOKEN_ROWS: Final = 0.05
ATTENTION: Final = 5.0


class Products(NamedTuple):
    """Linears whose products are made of the same row counts."""

    weights: int  # numbers of all of them
    row_counts: tuple[int, ...] | None  # rising; None: any, by tiles
    logits: bool  # only of rows that have logits


class StepCost:
    """The cost of a step of one model, in rows."""

    def __init__(
        self,
        products: Sequence[Products] = (Products(1, ROW_COUNTS, logits=False),),
        layouts: Sequence[AttentionLayout] = (),
    ) -> None:
        whole = sum(each.weights for each in products)
        self._products = [(each, each.weights / whole) for each in products]
        self._of = lru_cache(maxsize=4096)(self._reckoned)
        self._sights: dict[int | None, float] = {}  # a token of context, by how far layers see
        for layout in layouts:
            sight = layout.window or layout.chunk
            rows = 2 * ATTENTION * layout.heads * layout.head_dim / whole
            self._sights[sight] = self._sights.get(sight, 0.0) + rows

    def __call__(self, tokens: int, logits: int) -> float:
        """Return what so many tokens cost, of which so many have logits; at least one each."""
        return self._of(tokens, logits)

    def beside_row(self, context: int) -> float:
        """Return what one more token of a sequence of this length costs beside its row."""
        return TOKEN_ROWS + sum(
            rows * (context if sight is None else min(context, sight))
            for sight, rows in self._sights.items()
        )

    def _reckoned(self, tokens: int, logits: int) -> float:
        return sum(
            share * _rows(logits if each.logits else tokens, each.row_counts)
            for each, share in self._products
        )


def _rows(count: int, row_counts: tuple[int, ...] | None) -> int:
    if row_counts is None:
        return -(-count // TILE_ROWS) * TILE_ROWS + TILES_READ_ROWS
    return sum(piece.rows + READ_ROWS for piece in cut(count, row_counts))

"""Where a step's tokens go, checked by eye."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril.worker.engine.packing import PackedRow, StepBlocks, lay_out, pack

if TYPE_CHECKING:
    from aril.worker.engine.kv_cache import KVCache


def test_tokens_are_placed_through_their_blocks(cache: KVCache) -> None:
    """A prefill chunk across two blocks and a decode row: ids, positions, places and lengths."""
    packed = pack(
        [
            PackedRow([11, 12, 13], 2, [5, 1], sampled=False),
            PackedRow([21], 0, [3]),
            PackedRow([31], 8, [0, 4, 2]),
        ],
        cache,
    )
    attention = packed.attention
    assert packed.input_ids.tolist() == [11, 12, 13, 21, 31]
    assert packed.position_ids.tolist() == [2, 3, 4, 0, 8]
    assert attention.slot_mapping.tolist() == [5 * 4 + 2, 5 * 4 + 3, 1 * 4, 3 * 4, 2 * 4]
    assert attention.cu_q.tolist() == [0, 3, 4, 5]
    assert attention.kv_lens.tolist() == [5, 1, 9]
    assert packed.logits_index.tolist() == [3, 4]


def test_short_tables_go_on_with_the_rows_own_block(cache: KVCache) -> None:
    """What pads a row's block table never points into another sequence's memory."""
    packed = pack([PackedRow([1], 0, [3]), PackedRow([2], 8, [0, 4, 2])], cache)
    assert packed.attention.block_table.tolist() == [[3, 3, 3], [0, 4, 2]]
    wide = lay_out([PackedRow([2], 8, [0, 4, 2])], 4, width=5)
    assert wide.block_table.tolist() == [[0, 4, 2, 0, 0]]


def test_new_blocks_are_cleared_and_old_ones_kept(cache: KVCache) -> None:
    """What a former owner left in a block is gone before the new one's first token."""
    for tensor in (*cache.k.values(), *cache.v.values()):
        tensor.fill_(float("nan"))
    pack([PackedRow([1, 2], 3, [5, 1]), PackedRow([3], 4, [0, 4]), PackedRow([4], 1, [2])], cache)
    for tensor in (*cache.k.values(), *cache.v.values()):
        cleared = [block for block in range(6) if not tensor[block].isnan().any()]
        assert cleared == [1, 4]  # block 5, 0 and 2 held the rows' earlier tokens


def test_a_step_knows_what_it_begins_and_fills() -> None:
    """Blocks without a token before are fresh; those whose last token comes are filled."""
    rows = [
        PackedRow([1, 2, 3, 4, 5, 6], 3, [5, 1, 3]),  # ends block 5, fills block 1, begins 3
        PackedRow([1], 7, [0, 4]),
        PackedRow([2], 2, [2]),
    ]
    assert [each.tolist() for each in StepBlocks.of(rows, 4)] == [[1, 3], [5, 1, 4]]

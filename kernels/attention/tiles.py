"""Tile choices of paged attention, apart from the maths. By geometry: none is measured on a GPU."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import torch

if TYPE_CHECKING:
    from aril.kernels.attention.sight import Sight

# Decodes are split further until so many programs wait for each processor: blocks of one head are
# short, and one alone leaves a processor waiting for memory.
WAVES: Final = 2

# Keys of a split, at least. In half types, with heads in groups of four, a program reads 2 · 128
# rows of keys and values and writes 4 of fp32, which are read again: a sixteenth more traffic.
SHORTEST: Final = 128


class AttentionTiles(NamedTuple):
    """Tile sizes. `split` and `block_n` decide the order of a row's sum.

    Above 16 rows one stage only: the weights are made in registers, and ptxas before CUDA 13.3
    miscompiles a pipelined wgmma that reads them there.
    """

    block_m: int
    block_n: int = 64
    split: int = 512  # tokens, a multiple of 16
    warps: int = 4
    stages: int = 1  # how deep the walk over the keys is pipelined


def choose_tiles(*, rows: int, seqs: int, group: int, dim: int, tall: bool) -> AttentionTiles:
    """Take the smallest tile that holds a group of heads, where allowed a tall one for prefills.

    Wide heads in a tall tile need twice the threads, or its sums spill out of the registers.
    """
    block_m = max(16, 1 << (group - 1).bit_length())
    if tall and rows > 4 * seqs:
        block_m = max(64, block_m)
    wide = dim > 128 and block_m >= 64  # noqa: PLR2004 - see above
    return AttentionTiles(block_m, warps=8 if wide else 4, stages=2 if block_m == 16 else 1)  # noqa: PLR2004


def spread_decodes(
    tiles: AttentionTiles, *, walks: int, room: int, sight: Sight, processors: int
) -> AttentionTiles:
    """Halve the splits of a step that only decodes while its programs cannot fill the device.

    `walks` are sequences times kv heads, each over up to `room` keys, of which it sees a window or
    a chunk. The order of a row's sum then depends on its batch, which the fast mode allows.
    """
    seen = min(room, sight.reach) if sight else room
    split = tiles.split
    while split // 2 >= max(SHORTEST, tiles.block_n) and (
        walks * -(-seen // split) < WAVES * processors
    ):
        split //= 2
    return tiles._replace(split=split)


@lru_cache
def processors_of(device: torch.device) -> int:
    """Return how many a device has; 1 for what is none, as in Triton's interpreter."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)

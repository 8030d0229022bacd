"""How Triton's attention is split: a long row fills a device, many rows are left alone."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from aril.kernels.attention import Sight, launch, paged_attention
from aril.kernels.attention.sight import FAR
from aril.kernels.attention.tiles import SHORTEST, WAVES, AttentionTiles, spread_decodes
from tests.support.attention_case import SCALE, AttentionCase, make_case
from tests.support.device import device_of

PROCESSORS = 132  # an H100's
LONGEST = AttentionTiles(16).split


def split_of(walks: int, room: int, sight: Sight = FAR, processors: int = PROCESSORS) -> int:
    """Choose for so many sequences' kv heads."""
    chosen = spread_decodes(
        AttentionTiles(16), walks=walks, room=room, sight=sight, processors=processors
    )
    return chosen.split


def test_splits_are_as_long_as_the_device_allows() -> None:
    """The longest that fill it; the shortest where none does."""
    lengths = [LONGEST >> halved for halved in range(5) if LONGEST >> halved >= SHORTEST]
    for walks, room in product((1, 2, 8, 16, 24, 64, 512), (16, 300, 1024, 4096, 8192, 131_072)):
        full = [each for each in lengths if walks * -(-room // each) >= WAVES * PROCESSORS]
        assert split_of(walks, room) == max(full, default=SHORTEST)


def test_one_row_is_split_and_many_are_not() -> None:
    """8 kv heads, 8,192 keys: 512 programs for one row; 64 rows have enough; a sight counts."""
    assert split_of(8, 8192) == SHORTEST
    assert split_of(8, 131_072) == LONGEST
    assert split_of(64 * 8, 1024) == LONGEST
    assert split_of(8, 131_072, Sight(window=4096)) == SHORTEST
    assert split_of(8, 131_072, Sight(chunk=4096)) == SHORTEST
    assert split_of(1, 8192, processors=1) == LONGEST


def attended(
    case: AttentionCase, monkeypatch: pytest.MonkeyPatch, *, invariant: bool = False
) -> tuple[torch.Tensor, int]:
    """Attend on a device of so many processors; return the split that was taken, too."""
    taken = []
    own = launch.attend_op

    def watched(*operands: object) -> None:
        taken.append(operands[SPLIT])
        own(*operands)

    there = case.to(device_of("triton"))
    with monkeypatch.context() as patch:
        patch.setattr(launch, "processors_of", lambda _: PROCESSORS)
        patch.setattr(launch, "attend_op", watched)
        out = paged_attention(
            there.q,
            there.k_cache,
            there.v_cache,
            there.block_table,
            there.cu_q,
            there.kv_lens,
            scale=SCALE,
            invariant=invariant,
            backend="triton",
        )
    (split,) = taken
    assert isinstance(split, int)
    return out.cpu(), split


SPLIT = [argument.name for argument in launch.attend_op._schema.arguments].index("split")


@pytest.mark.parametrize(
    "sequences",
    [
        [(1, 700)],
        [(1, 1)],
        [(1, 128)],
        [(1, 129)],
        [*[(1, 1 + 3 * row) for row in range(31)], (1, 530), *[(1, 2)] * 32],
    ],
    ids=["one long row", "one key", "one split", "one key more", "64 rows, one of them long"],
)
def test_a_device_is_filled_by_what_is_there(
    sequences: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By short splits over one row and over 64 of one kv head, against fp64."""
    case = make_case(sequences, heads=2, kv_heads=1, dim=16, page=16)
    out, split = attended(case, monkeypatch)
    assert split == SHORTEST
    torch.testing.assert_close(out.double(), case.expected(), rtol=0, atol=3e-6)


def test_prompts_and_the_invariant_mode_keep_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prompt's programs walk all its splits; bits must not depend on the batch."""
    prompt = make_case([(2, 150), (1, 150)], heads=2, kv_heads=1, dim=16, page=16)
    decode = make_case([(1, 150)], heads=2, kv_heads=1, dim=16, page=16)
    assert attended(prompt, monkeypatch)[1] == LONGEST
    assert attended(decode, monkeypatch, invariant=True)[1] == LONGEST

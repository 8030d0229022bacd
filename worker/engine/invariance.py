"""Invariant mode: a row's bits are the same alone, among any others, decoded or prefilled again.

Libraries choose their kernels, and with them the order of their sums, by the shape of the whole
batch. So every product of a step gets one shape: rows in blocks of a fixed number, the last one
padded (He and others, "Defeating Nondeterminism in LLM Inference", 2025). Attention has its own
fixed blocks and splits (kernels/attention/invariant.py), adapters theirs (`SgmvMode.INVARIANT`);
norms and activations work on each row for itself. That this is enough on the machine at hand is
not taken on trust: `probe_invariance` compares bits through the whole model at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn.functional import pad

from worker.engine.attention import UnsupportedModelError
from worker.engine.kv_cache import KVCache, PackedRow, pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from worker.engine.config import EngineConfig
    from worker.engine.model import Backbone

# A block costs what its weights cost to read, however few rows it has: as many as decode at once.
BLOCK_ROWS = 16

_CACHE_BLOCK = 4
# The first is longer than a block of rows, and no multiple of one, nor of a block of queries.
_LENGTHS = (19, 1, 9, 2)


def in_blocks(multiply: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return multiply(x) for x [..., in], computed in blocks of BLOCK_ROWS rows.

    Rows of zeros fill the last block. `multiply` takes and returns matrices of that many rows.
    """
    rows = x.reshape(-1, x.shape[-1])
    count = len(rows)
    if count == 0:
        return multiply(x)
    blocks = pad(rows, (0, 0, 0, -count % BLOCK_ROWS)).split(BLOCK_ROWS)
    y = torch.cat([multiply(block) for block in blocks])[:count]
    return y.view(*x.shape[:-1], y.shape[-1])


def refuse_where_not_invariant(config: EngineConfig) -> None:
    """Raise UnsupportedModelError for a device or type of numbers that has no invariant mode."""
    if config.device != "cpu":
        raise UnsupportedModelError("invariant mode is built for the CPU only: ARIL_INVARIANT")
    if config.dtype is not torch.float32:
        # oneDNN's half precision products differ by a row's place within its block.
        raise UnsupportedModelError("invariant mode needs ARIL_DTYPE=float32 on a CPU")


def refuse_other_linears(backbone: Backbone, covered: Iterable[str]) -> None:
    """Raise UnsupportedModelError for linears that do not run in blocks of ours."""
    left = backbone.linear_shapes.keys() - set(covered)
    if left:
        raise UnsupportedModelError(
            f"{backbone.model.config.model_type}: {min(left)} does not see every row once, so it "
            "has no invariant mode"
        )


def probe_invariance(backbone: Backbone, config: EngineConfig) -> None:
    """Compare each sequence's logits, computed in four ways, bit for bit.

    All sequences mixed; each alone at once; each alone in three pieces; each token by token with
    the others' tokens beside it. Raises UnsupportedModelError when a bit differs: a library's
    kernel does not keep to its rows then, and nothing that we could do afterwards would help.
    """
    sequences = _sequences(backbone.vocab_size)
    mixed = _logits(backbone, config, [[sequences]])
    alone = _logits(backbone, config, [[[each]] for each in sequences])
    pieces = _logits(
        backbone,
        config,
        [
            [[each[:part]] for part in (len(each) // 3, len(each) // 2, len(each))]
            for each in sequences
        ],
    )
    longest = max(map(len, sequences))
    tokens = _logits(
        backbone,
        config,
        [[[each[: step + 1] for each in sequences] for step in range(longest)]],
    )
    for index, expected in enumerate(alone):
        if not all(torch.equal(expected, found[index]) for found in (mixed, pieces, tokens)):
            raise UnsupportedModelError(
                f"{backbone.model.config.model_type}: a row's bits depend on the rows beside it "
                "on this machine, so it has no invariant mode"
            )


def _sequences(vocab_size: int) -> list[list[int]]:
    return [
        [(6007 * (at + 17 * row) + 5) % vocab_size for at in range(length)]
        for row, length in enumerate(_LENGTHS)
    ]


def _logits(
    backbone: Backbone, config: EngineConfig, runs: Sequence[Sequence[Sequence[list[int]]]]
) -> list[Tensor]:
    """Logits [length, vocab] of every sequence of every run.

    A run is a list of steps; a step tells how much of each of the run's sequences is known by then,
    and the tokens that are new to it are computed in one pass.
    """
    return [sequence for steps in runs for sequence in _run(backbone, config, steps)]


def _run(
    backbone: Backbone, config: EngineConfig, steps: Sequence[Sequence[list[int]]]
) -> list[Tensor]:
    whole = steps[-1]
    needed = [-(-len(ids) // _CACHE_BLOCK) for ids in whole]
    cache = KVCache(
        backbone.layouts,
        blocks=sum(needed),
        block_size=_CACHE_BLOCK,
        dtype=backbone.dtype,
        device=backbone.device,
    )
    free = iter(range(sum(needed)))
    blocks = [[next(free) for _ in range(count)] for count in needed]
    known = [0] * len(whole)
    parts: list[list[Tensor]] = [[] for _ in whole]
    for step in steps:
        owners = [owner for owner, ids in enumerate(step) if len(ids) > known[owner]]
        if not owners:
            continue
        rows = [
            PackedRow(step[owner][known[owner] :], known[owner], blocks[owner]) for owner in owners
        ]
        packed = pack(rows, cache, config.backend, invariant=True)
        everywhere = torch.arange(len(packed.input_ids), device=backbone.device)
        logits = backbone.forward(
            packed.input_ids, packed.position_ids, everywhere, packed.attention
        )
        for owner, part in zip(owners, logits.split([len(row.ids) for row in rows]), strict=True):
            parts[owner].append(part)
            known[owner] = len(step[owner])
    return [torch.cat(part) for part in parts]

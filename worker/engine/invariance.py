"""Invariant mode: a row's bits are the same alone, among any others, decoded or prefilled again.

Libraries choose their kernels, and with them the order of their sums, by the shape of the whole
batch (He and others, "Defeating Nondeterminism in LLM Inference", 2025). So a step's products are
made of row counts that were found to give a row the same bits (row_classes.py). Attention has its
own fixed blocks and splits (kernels/attention/invariant.py), adapters theirs
(`SgmvMode.INVARIANT`); norms and activations work on each row for itself. That this is enough on
the machine at hand is not taken on trust: `probe_invariance` compares bits through the whole model
at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.packed_logits import packed_logits, probe_sequences

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor

    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.model import Backbone

_DTYPES = frozenset({torch.float32, torch.bfloat16})

# The first is longer than a block of rows, and no multiple of one, nor of a block of queries.
_LENGTHS = (19, 1, 9, 2)


def refuse_where_not_invariant(config: EngineConfig) -> None:
    """Raise UnsupportedModelError for a device or type of numbers that has no invariant mode."""
    if config.device != "cpu":
        raise UnsupportedModelError("invariant mode is built for the CPU only: ARIL_INVARIANT")
    if config.dtype not in _DTYPES:
        raise UnsupportedModelError("invariant mode needs ARIL_DTYPE float32 or bfloat16 on a CPU")


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
    sequences = probe_sequences(_LENGTHS, backbone.vocab_size)

    def logits(*steps: Sequence[Sequence[int]]) -> list[Tensor]:
        return packed_logits(backbone, steps, config.backend, invariant=True)

    mixed = logits(sequences)
    alone = [logits([each])[0] for each in sequences]
    pieces = [
        logits([each[: len(each) // 3]], [each[: len(each) // 2]], [each])[0] for each in sequences
    ]
    tokens = logits(*([each[: step + 1] for each in sequences] for step in range(max(_LENGTHS))))
    for index, expected in enumerate(alone):
        if not all(torch.equal(expected, found[index]) for found in (mixed, pieces, tokens)):
            raise UnsupportedModelError(
                f"{backbone.model.config.model_type}: a row's bits depend on the rows beside it "
                "on this machine, so it has no invariant mode"
            )

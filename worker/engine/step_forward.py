"""One step through the backbone: rows packed, each token under its own adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aril.worker.engine.feedback import NO_FEEDBACK, Feedback
from aril.worker.engine.filled_blocks import Forwarded
from aril.worker.engine.one_copy import one_copy
from aril.worker.engine.packing import HostRows, PackedRow, StepBlocks, lay_out, packed_rows
from aril.worker.engine.row_adapters import NOTHING, Planner, arrays_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.decode_graphs import DecodeGraphs
    from aril.worker.engine.kv_cache import KVCache
    from aril.worker.engine.lora import AdapterLayers
    from aril.worker.engine.model import Backbone
    from aril.worker.engine.row_adapters import Applied
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.step_plan import StepPlan


class StepForward:
    """Runs what a step plans; replays a recording instead where there is one that serves.

    The device is told all that it needs in one copy, and not waited for.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: EngineConfig,
        layers: AdapterLayers,
        cache: KVCache,
        graphs: DecodeGraphs | None,
    ) -> None:
        self._backbone = backbone
        self._config = config
        self._layers = layers
        self._cache = cache
        self._graphs = graphs
        self._planner = Planner.of(config, backbone.device)

    def __call__(self, plan: StepPlan, feedback: Feedback = NO_FEEDBACK) -> Forwarded:
        """Run a step; `feedback` is those of its tokens that only the device knows."""
        rows = [
            PackedRow(
                row.ids,
                row.start,
                row.sequence.block_ids,
                row.sampled,
                row.tells,
                self._length(row.sequence),
            )
            for row in plan.rows
        ]
        last = [(row.slots, row.sequence.scales) if row.slots else NOTHING for row in plan.rows]
        blocks = StepBlocks.of(rows, self._cache.block_size)
        if not self._config.prefix_cache:  # then nobody asks
            blocks = blocks._replace(filled=blocks.filled[:0])
        served = None
        if self._graphs is not None:
            served = self._graphs.forward(rows, last, blocks, feedback)
        if served is None:
            tokens = [
                each
                for row, own in zip(plan.rows, last, strict=True)
                for each in [NOTHING] * row.bare + [own] * (row.count - row.bare)
            ]
            outputs = [
                each
                for row, own in zip(plan.rows, last, strict=True)
                for each in (
                    *(NOTHING if at < row.bare else own for at in row.tells),
                    *[own] * row.sampled,
                )
            ]
            served = self.run(rows, tokens, outputs, blocks, feedback)
        logits, filled = served
        finite = self._cache.finite(filled) if len(filled) else None
        return Forwarded(logits, blocks.filled.tolist(), finite)

    def run(
        self,
        rows: Sequence[PackedRow],
        tokens: Sequence[Applied],
        outputs: Sequence[Applied],
        blocks: StepBlocks,
        feedback: Feedback = NO_FEEDBACK,
    ) -> tuple[Tensor, Tensor]:
        """Run rows eagerly: logits in fp32, and the blocks that are filled, on the device.

        `tokens` is what works on each token, `outputs` on each place whose logits are wanted.
        """
        host = lay_out(rows, self._cache.block_size)
        bodies, heads = self._planner.lay_out(tokens), self._planner.lay_out(outputs)
        fed = feedback.places, feedback.sources
        arrays = [*host, *blocks, *fed, *arrays_of(bodies), *arrays_of(heads)]
        there = iter(one_copy(arrays, self._cache.device))
        packed = packed_rows(
            HostRows(*(next(there) for _ in host)),
            self._cache,
            self._config.backend,
            invariant=self._config.invariant,
        )
        fresh, filled = (next(there) for _ in blocks)
        feedback.fill_(packed.input_ids, *(next(there) for _ in fed))
        self._cache.clear(fresh)
        self._layers.begin(self._planner.on(bodies, there), self._planner.on(heads, there))
        with np.errstate(all="ignore"):  # an adapter may overflow: seen at its row's logits
            logits = self._backbone.forward(
                packed.input_ids,
                packed.position_ids,
                packed.logits_index,
                packed.attention,
                packed.lengths,
            )
        return logits.float(), filled

    def _length(self, sequence: TokenSequence) -> int:
        """Return what its tokens' frequencies go by, where they change with length."""
        return len(sequence.prompt_ids) if self._backbone.rope.grows else sequence.length

"""One step through the backbone: rows packed, each token under its own adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from worker.engine.packing import PackedRow, pack
from worker.engine.row_adapters import NOTHING, make_plans

if TYPE_CHECKING:
    from torch import Tensor

    from kernels.sgmv import SgmvPlan
    from worker.engine.config import EngineConfig
    from worker.engine.decode_graphs import DecodeGraphs
    from worker.engine.kv_cache import KVCache
    from worker.engine.lora import AdapterLayers
    from worker.engine.model import Backbone
    from worker.engine.row_adapters import Applied
    from worker.engine.sequence import TokenSequence
    from worker.engine.step_plan import StepPlan


class StepForward:
    """Runs what a step plans; replays a recording instead where there is one that serves."""

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

    def __call__(self, plan: StepPlan) -> Tensor:
        """Return logits, float32 [n, vocab]: of each row the places told of, then those sampled."""
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
        if self._graphs is not None:
            logits = self._graphs.forward(rows, last)
            if logits is not None:
                return logits
        packed = pack(rows, self._cache, self._config.backend, invariant=self._config.invariant)
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
        self._layers.begin(self._plans(tokens), self._plans(outputs))
        with np.errstate(all="ignore"):  # an adapter may overflow: seen at its row's logits
            return self._backbone.forward(
                packed.input_ids,
                packed.position_ids,
                packed.logits_index,
                packed.attention,
                packed.lengths,
            ).float()

    def _length(self, sequence: TokenSequence) -> int:
        """Return what its tokens' frequencies go by, where they change with length."""
        return len(sequence.prompt_ids) if self._backbone.rope.grows else sequence.length

    def _plans(self, applied: list[Applied]) -> tuple[SgmvPlan, ...]:
        return make_plans(
            applied,
            slots=self._config.slots,
            invariant=self._config.invariant,
            device=self._backbone.device,
        )

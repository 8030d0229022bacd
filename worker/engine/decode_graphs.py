"""Decode steps that are recorded once and replayed, as CUDA graphs.

A step in which each row decodes one token launches the same kernels every time, about six hundred
for an 8B model, and the host starts each. Recorded, they start by one call. All that changes
between steps lies in tensors that keep their place: tokens, positions, block tables, and which row
has which adapter. Rows are rounded up to a recorded number; those that are added read one key of
the first row, write nothing, and their logits are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch

from aril.worker.engine.capture import capturing
from aril.worker.engine.feedback import NO_FEEDBACK, Feedback
from aril.worker.engine.one_copy import one_copy, words_of
from aril.worker.engine.packing import HostRows, PackedRow, StepBlocks, lay_out, packed_rows
from aril.worker.engine.row_adapters import NOTHING, Applied, Planner, arrays_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from aril.kernels.sgmv import PlanLayout, SgmvPlan
    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.kv_cache import KVCache
    from aril.worker.engine.lora import AdapterLayers
    from aril.worker.engine.model import Backbone

# Tokens that the narrowest block table holds; each wider one holds four times as many. A table
# that is too wide costs programs that end at once, each recording costs memory and start-up time.
NARROWEST = 1024
WIDER = 4

_ROOMS = 4  # of so many numbers as there are rows: what `put` takes beside rows and plans

_RUNS_BEFORE = 2  # so that every kernel is compiled and every buffer allocated


class Recorder(Protocol):
    """Records a step that reads and writes tensors which keep their place."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Run the step as often as it needs, and return what runs it again."""


class CudaRecorder:
    """Captures steps as CUDA graphs, which share one pool of memory: they never run together."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Capture one step."""
        own = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(own)
        with torch.cuda.stream(self._stream):
            for _ in range(_RUNS_BEFORE):
                step()
        own.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        with capturing(graph, pool=self._pool, stream=self._stream):
            step()
        replay: Callable[[], None] = graph.replay
        return replay


class Shape(NamedTuple):
    """What one recording is for."""

    rows: int
    blocks: int  # width of the block table
    adapters: bool  # whether any row has one


def shapes_of(config: EngineConfig, max_positions: int | None) -> tuple[Shape, ...]:
    """List all shapes that are recorded: every decode step fits one, the smallest first."""
    longest = min(config.kv_tokens, max_positions or config.kv_tokens)
    tokens = [NARROWEST]
    while tokens[-1] < longest:
        tokens.append(tokens[-1] * WIDER)
    widths = sorted({-(-min(each, longest) // config.kv_block) for each in tokens})
    rows = [1]
    while rows[-1] < config.max_rows:
        rows.append(min(2 * rows[-1], config.max_rows))
    return tuple(
        Shape(count, width, adapters)
        for count in rows
        for width in widths
        for adapters in (False, True)
    )


class DecodeGraphs:
    """The recorded decode steps of one engine. Made once, when all else is in its place."""

    def __init__(
        self,
        backbone: Backbone,
        layers: AdapterLayers,
        cache: KVCache,
        config: EngineConfig,
        record: Recorder,
    ) -> None:
        self._backbone = backbone
        self._layers = layers
        self._cache = cache
        # One for all shapes, since no two steps run together: at 64 rows of 128,256 words 16 MB.
        self._logits = torch.empty(
            config.max_rows, backbone.vocab_size, dtype=backbone.dtype, device=cache.device
        )
        self._recorded: dict[Shape, tuple[StaticRows, Callable[[], None]]] = {}
        for shape in shapes_of(config, backbone.max_positions):
            static = StaticRows(shape, cache, config)
            self._recorded[shape] = static, record(self._step(static, self._logits[: shape.rows]))

    @property
    def recordings(self) -> int:
        """How many steps are recorded."""
        return len(self._recorded)

    def forward(
        self,
        rows: Sequence[PackedRow],
        applied: Sequence[Applied],
        blocks: StepBlocks,
        feedback: Feedback = NO_FEEDBACK,
    ) -> tuple[Tensor, Tensor] | None:
        """Decode rows with these adapters: logits [len(rows), vocab] in fp32, and filled blocks.

        The blocks are those of `blocks`, on the device. What comes is to be used by what the device
        is asked before the next step: of a model in fp32 that overwrites the logits.

        None where no recording serves: a row does more than decode one token, or has several
        adapters, or one that brings what no recording has (`AdapterLayers.recordable`).
        """
        if any(len(row.ids) != 1 or row.told or not row.sampled for row in rows):
            return None
        if any(len(slots) > 1 for slots, _ in applied):
            return None
        adapters = any(slots for slots, _ in applied)
        if not self._layers.recordable(slot for slots, _ in applied for slot in slots):
            return None
        width = max(len(row.block_ids) for row in rows)
        static, replay = next(
            recorded
            for shape, recorded in self._recorded.items()
            if shape.rows >= len(rows) and shape.blocks >= width and shape.adapters == adapters
        )
        fresh, filled = static.put(rows, applied, blocks, feedback)
        self._cache.clear(fresh)
        replay()
        return self._logits[: len(rows)].float(), filled

    def _step(self, static: StaticRows, logits: Tensor) -> Callable[[], None]:
        def step() -> None:
            plans = () if static.plan is None else (static.plan,)
            self._layers.begin(plans, ())
            logits.copy_(
                self._backbone.forward(
                    static.input_ids,
                    static.positions,
                    static.every,
                    static.attention,
                    static.lengths,
                )
            )

        return step


class StaticRows:
    """The tensors of one shape's steps, at addresses that never change: parts of one buffer."""

    def __init__(self, shape: Shape, cache: KVCache, config: EngineConfig) -> None:
        self._shape = shape
        self._block_size = cache.block_size
        self._device = cache.device
        self._planner = Planner.of(config, cache.device)
        self._room = np.zeros(shape.rows, np.int64)
        host, layouts = self._lay_out([], [])
        arrays = [*host, *arrays_of(layouts), *[self._room] * _ROOMS]
        self._buffer = torch.empty(words_of(arrays), dtype=torch.int64, device=cache.device)
        there = iter(one_copy(arrays, cache.device, self._buffer))
        packed = packed_rows(HostRows(*(next(there) for _ in host)), cache, config.backend)
        self.input_ids = packed.input_ids
        self.positions = packed.position_ids
        self.lengths = packed.lengths
        self.every = packed.logits_index  # all of them are sampled
        self.attention = packed.attention
        plans = self._planner.on(layouts, there)
        self.plan: SgmvPlan | None = plans[0] if plans else None
        self._rooms = list(there)

    def put(
        self,
        rows: Sequence[PackedRow],
        applied: Sequence[Applied],
        blocks: StepBlocks,
        feedback: Feedback = NO_FEEDBACK,
    ) -> tuple[Tensor, Tensor]:
        """Take other rows; those added to fill the shape read the first row's keys, write none.

        Returns `blocks` on the device. All of it goes there in one copy, and what the device alone
        knows is put in behind.
        """
        host, layouts = self._lay_out(rows, applied)
        told = [*blocks, feedback.places, feedback.sources]
        room = [np.zeros_like(self._room) for _ in told]
        for own, each in zip(room, told, strict=True):
            own[: len(each)] = each
        one_copy([*host, *arrays_of(layouts), *room], self._device, self._buffer)
        if self.plan is not None:
            self.plan.follow(layouts[0])
        rooms = zip(self._rooms, told, strict=True)
        fresh, filled, *fed = (there[: len(each)] for there, each in rooms)
        feedback.fill_(self.input_ids, *fed)
        return fresh, filled

    def _lay_out(
        self, rows: Sequence[PackedRow], applied: Sequence[Applied]
    ) -> tuple[HostRows, list[PlanLayout]]:
        """Lay out as many rows as the shape has."""
        added = self._shape.rows - len(rows)
        filler = PackedRow([0], 0, rows[0].block_ids[:1] if rows else [0])
        host = lay_out([*rows, *[filler] * added], self._block_size, width=self._shape.blocks)
        host.slot_mapping[len(rows) :] = -1
        if not self._shape.adapters:
            return host, []
        applied = [*applied, *[NOTHING] * added]
        return host, [self._planner.lay_out_layer(applied, 0, static=True)]

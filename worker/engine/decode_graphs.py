"""Decode steps that are recorded once and replayed, as CUDA graphs.

A step in which each row decodes one token launches the same kernels every time, about six hundred
for an 8B model, and the host starts each. Recorded, they start by one call. All that changes
between steps lies in tensors that keep their place: tokens, positions, block tables, and which row
has which adapter. Rows are rounded up to a recorded number; those that are added read one key of
the first row, write nothing, and their logits are dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch

from kernels.sgmv import make_plan
from worker.engine.attention import PagedAttention
from worker.engine.packing import PackedRow, clear_fresh, lay_out
from worker.engine.row_adapters import NOTHING, Applied, layer_of
from worker.engine.sequence import BACKBONE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from kernels.sgmv import SgmvPlan
    from worker.engine.config import EngineConfig
    from worker.engine.kv_cache import KVCache
    from worker.engine.lora import AdapterLayers
    from worker.engine.model import Backbone

# Tokens that the narrowest block table holds; each wider one holds four times as many. A table
# that is too wide costs programs that end at once, each recording costs memory and start-up time.
NARROWEST = 1024
WIDER = 4

_RUNS_BEFORE = 2  # so that every kernel is compiled and every buffer allocated


class Recorder(Protocol):
    """Records a step that reads and writes tensors which keep their place."""

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Run the step as often as it needs, and return what runs it again."""


class CudaRecorder:
    """Captures steps as CUDA graphs, which share one pool of memory: they never run together."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Capture one step."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_RUNS_BEFORE):
                step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
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

    def forward(self, rows: Sequence[PackedRow], applied: Sequence[Applied]) -> Tensor | None:
        """Decode rows with these adapters: logits [len(rows), vocab] in fp32.

        They are to be used before the next step: of a model in fp32 it overwrites them.

        None where no recording serves: a row does more than decode one token, or has several
        adapters, or an adapter in a slot has biases or experts, or changes the logits' own linear:
        these get their memory when the first such adapter comes, after all recordings.
        """
        if any(len(row.ids) != 1 or row.told or not row.sampled for row in rows):
            return None
        if any(len(slots) > 1 for slots, _ in applied):
            return None
        adapters = any(slots for slots, _ in applied)
        if adapters and self._layers.needs_late_memory:
            return None
        blocks = max(len(row.block_ids) for row in rows)
        static, replay = next(
            recorded
            for shape, recorded in self._recorded.items()
            if shape.rows >= len(rows) and shape.blocks >= blocks and shape.adapters == adapters
        )
        clear_fresh(rows, self._cache)
        static.put(rows, applied)
        replay()
        return self._logits[: len(rows)].float()

    def _step(self, static: StaticRows, logits: Tensor) -> Callable[[], None]:
        def step() -> None:
            plans = () if static.plan is None else (static.plan,)
            self._layers.begin(plans, plans)
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
    """The tensors of one shape's steps, at addresses that never change."""

    def __init__(self, shape: Shape, cache: KVCache, config: EngineConfig) -> None:
        rows, device = shape.rows, cache.device
        self._shape = shape
        self._block_size = cache.block_size
        self.input_ids = torch.zeros(rows, dtype=torch.int64, device=device)
        self.positions = torch.zeros(rows, dtype=torch.int64, device=device)
        self.lengths = torch.ones(rows, dtype=torch.int64, device=device)
        self.every = torch.arange(rows, device=device)  # all of them are sampled
        self.attention = PagedAttention(
            k_cache=cache.k,
            v_cache=cache.v,
            slot_mapping=torch.full((rows,), -1, dtype=torch.int64, device=device),
            block_table=torch.zeros(rows, shape.blocks, dtype=torch.int32, device=device),
            cu_q=torch.arange(rows + 1, dtype=torch.int32, device=device),
            kv_lens=torch.ones(rows, dtype=torch.int32, device=device),
            backend=config.backend,
        )
        self.plan: SgmvPlan | None = None
        if shape.adapters:
            self.plan = make_plan(
                torch.full((rows,), BACKBONE, dtype=torch.int32),
                slots=config.slots,
                device=device,
                static=True,
            )

    def put(self, rows: Sequence[PackedRow], applied: Sequence[Applied]) -> None:
        """Take other rows; those added to fill the shape read the first row's keys, write none."""
        added = self._shape.rows - len(rows)
        filler = PackedRow([0], 0, rows[0].block_ids[:1])
        host = lay_out([*rows, *[filler] * added], self._block_size, width=self._shape.blocks)
        attention = self.attention
        _put(self.input_ids, host.input_ids)
        _put(self.positions, host.position_ids)
        _put(self.lengths, host.lengths)
        _put(attention.slot_mapping, host.slot_mapping[: len(rows)] + [-1] * added)
        _put(attention.kv_lens, host.kv_lens)
        _put(attention.block_table, host.block_table)
        if self.plan is not None:
            ids, scales = layer_of([*applied, *[NOTHING] * added], 0)
            self.plan.update_(ids, scales)


def _put(place: Tensor, values: Sequence[object]) -> None:
    place.copy_(torch.tensor(values, dtype=place.dtype), non_blocking=True)

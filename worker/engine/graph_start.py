"""Whether decode steps are replayed: recorded at start, and shown to give what eager steps give.

`auto` (the default of a worker) records on a CUDA device where the model can be recorded and the
proof holds, and says in one line why not where it does not. `on` ends the start instead.
"""

from __future__ import annotations

import random
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import torch

from aril.worker.adapters import AdapterWeights, LoraModule
from aril.worker.engine.attention import UnsupportedModelError
from aril.worker.engine.decode_graphs import CudaRecorder, DecodeGraphs
from aril.worker.engine.packing import PackedRow, StepBlocks
from aril.worker.engine.probe import LOGIT_BOUND
from aril.worker.engine.row_adapters import NOTHING
from aril.worker.engine.step_forward import StepForward
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.decode_graphs import Recorder
    from aril.worker.engine.kv_cache import KVCache
    from aril.worker.engine.lora import AdapterLayers
    from aril.worker.engine.model import Backbone
    from aril.worker.engine.row_adapters import Applied

log = get_logger(__name__)

_BATCHES: Final = 6
_SEED: Final = 20_261_129
_SHORT: Final = 2048  # tokens of the batches' other rows, at most
_RANK: Final = 8  # of the proof's adapters, at most


def make_graphs(
    backbone: Backbone,
    layers: AdapterLayers,
    cache: KVCache,
    config: EngineConfig,
    record: Recorder | None = None,
) -> DecodeGraphs | None:
    """Record decode steps and prove them; None where steps are to run eagerly.

    `record` does it in place of CUDA, also where the configuration says `off`: without a proof
    then. Raises UnsupportedModelError where recordings were asked for and cannot be had.
    """
    on_gpu = backbone.device.type == "cuda"
    if record is None and (config.graphs == "off" or (config.graphs == "auto" and not on_gpu)):
        return None
    try:
        _refuse(backbone, config)
        recorder = CudaRecorder(backbone.device) if record is None else record
        graphs = DecodeGraphs(backbone, layers, cache, config, recorder)
        worst = 0.0
        if config.graphs != "off":
            worst = prove(graphs, backbone, layers, cache, config)
    except (UnsupportedModelError, RuntimeError) as error:  # what CUDA says of a capture, too
        if config.graphs == "auto":
            reason = str(error).splitlines()[0]
            log.warning("decode_graphs_off", model=backbone.name, reason=reason)
            return None
        if isinstance(error, UnsupportedModelError):
            raise
        raise UnsupportedModelError(f"{error}: ARIL_CUDA_GRAPHS") from error
    log.info("decode_graphs_on", recordings=graphs.recordings, difference=f"{worst:.1e}")
    return graphs


def _refuse(backbone: Backbone, config: EngineConfig) -> None:
    if backbone.rope.grows:  # looks at each step's lengths
        raise UnsupportedModelError(
            f"{backbone.name}: RoPE of type 'dynamic' cannot be captured: ARIL_CUDA_GRAPHS"
        )
    if config.speculation:
        raise UnsupportedModelError(
            "a recording is of rows of one token, drafts have more: ARIL_SPECULATION"
        )


@torch.inference_mode()
def prove(
    graphs: DecodeGraphs,
    backbone: Backbone,
    layers: AdapterLayers,
    cache: KVCache,
    config: EngineConfig,
) -> float:
    """Compare replays with eager steps over random batches; leave cache and slots empty.

    Rows of any number and length, tables of any width, with adapters and without, over keys and
    values that are random. Both ways round differently only because a replay computes rows that
    are added: so no logit may differ by more than packed rows may from the model's own, whose
    bound it is. What a replay must not have kept (tokens, places, lengths, tables, slots) differs
    from batch to batch, and moves logits by far more. Returns the largest difference as a share of
    the largest logit; raises UnsupportedModelError where it exceeds LOGIT_BOUND.
    """
    dice = random.Random(_SEED)
    eager = StepForward(backbone, config, layers, cache, None)
    worst = 0.0
    with _in_slots(layers, backbone, config) as slots:
        for turn in range(_BATCHES):
            rows = _draw_rows(dice, turn, cache, config, backbone)
            applied = [_draw_applied(dice, slots) if turn % 2 else NOTHING for _ in rows]
            blocks = StepBlocks.of(rows, cache.block_size)
            used = max(block for row in rows for block in row.block_ids) + 1
            for each in (*cache.k.values(), *cache.v.values()):
                each[:used].normal_()
            expected = eager.run(rows, applied, applied, blocks)[0]
            served = graphs.forward(rows, applied, blocks)
            if served is None:
                raise UnsupportedModelError("a decode step that no recording serves")
            worst = max(worst, _difference(served[0], expected))
            for each in (*cache.k.values(), *cache.v.values()):
                each[:used].zero_()
    bound = LOGIT_BOUND[backbone.dtype]
    if not worst <= bound:
        raise UnsupportedModelError(
            f"{backbone.name}: logits of replayed decode steps differ from eager ones by "
            f"{worst:.1e} of the largest, allowed is {bound:.0e}: ARIL_CUDA_GRAPHS"
        )
    return worst


def _difference(one: Tensor, other: Tensor) -> float:
    """Return the largest difference as a share of the largest number; infinite for NaN."""
    share = float((one - other).abs().max() / other.abs().max())
    return share if share == share else float("inf")  # noqa: PLR0124 - NaN is not itself


def _draw_rows(
    dice: random.Random, turn: int, cache: KVCache, config: EngineConfig, backbone: Backbone
) -> list[PackedRow]:
    """Draw rows whose blocks follow each other in the cache, the first batches all and one row.

    One of them may be as long as there is room, so that tables are of any width.
    """
    size = cache.block_size
    count = (config.max_rows, 1)[turn] if turn < 2 else dice.randint(1, config.max_rows)  # noqa: PLR2004
    count = min(count, config.kv_blocks)
    share = config.kv_blocks // count
    longest = min(share * size, backbone.max_positions or share * size)
    lengths = [dice.randint(1, min(longest, _SHORT)) for _ in range(count)]
    lengths[-1] = dice.randint(1, longest)
    needed = [-(-length // size) for length in lengths]
    return [
        PackedRow(
            [dice.randrange(backbone.vocab_size)],
            length - 1,
            list(range(end - blocks, end))[::-1],  # falling, so that nobody's are in order
            length=length,
        )
        for length, blocks, end in zip(lengths, needed, accumulate(needed), strict=True)
    ]


def _draw_applied(dice: random.Random, slots: list[int]) -> Applied:
    slot = dice.choice([None, *slots])
    return NOTHING if slot is None else ((slot,), (dice.choice([1.0, 0.5]),))


@contextmanager
def _in_slots(
    layers: AdapterLayers, backbone: Backbone, config: EngineConfig
) -> Iterator[list[int]]:
    """Put random adapters of two ranks into the first and the last slot meanwhile."""
    slots = sorted({0, config.slots - 1})
    rank = min(_RANK, config.max_rank)
    try:
        for slot, own in zip(slots, (rank, max(1, rank // 2)), strict=False):
            if arrival := layers.load(slot, _random_adapter(layers, backbone, own)):
                arrival.wait()
        yield slots
    finally:
        for slot in slots:
            if arrival := layers.load(slot, AdapterWeights("none", "none", 1, {})):
                arrival.wait()


def _random_adapter(layers: AdapterLayers, backbone: Backbone, rank: int) -> AdapterWeights:
    generator = torch.Generator().manual_seed(rank)
    modules = {
        path: LoraModule(
            rank,
            1.0,
            torch.randn(rank, width, generator=generator) * width**-0.5,
            torch.randn(out, rank, generator=generator) * rank**-0.5,
        )
        for path, (out, width) in layers.shapes.items()
        if path != backbone.output_module
    }
    return AdapterWeights("random", f"random-{rank}", rank, modules)

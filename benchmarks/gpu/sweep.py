"""Measures tile choices of our kernels: what `kernels/sgmv/tiles.py` should say, and by how much.

Every candidate is timed for every number of rows, so one run answers both modes: `fast` may take
the best for each number of rows, `invariant` needs one choice for all of them. Both forms are
among the candidates: tensor cores, and matrix by vectors for blocks below 16 rows.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.gpu.checks import examine
from benchmarks.gpu.problem import make_problem
from benchmarks.gpu.providers import Sgmv
from benchmarks.gpu.timing import eager_times, graph_times, sets_needed
from benchmarks.gpu.workloads import LLAMA_8B, TINY, Workload, decode_case, prefill_case
from kernels.sgmv import SgmvMode
from kernels.sgmv.cost import sgmv_cost
from kernels.sgmv.tiles import MIN_TILE, choose_tiles, matrix_vector_tiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gpu.results import Results
    from benchmarks.gpu.workloads import Case, Layer
    from kernels.sgmv.tiles import Tiles

QUESTION = "sgmv_tiles"
RANKS = (16, 64)

# What is tried of the matrix-vector form: its own start for each height of a block, and each field
# changed alone for the lowest and the highest.
VECTOR_HEIGHTS = (1, 2, 4)
VECTOR_FIELDS: dict[str, tuple[int, ...]] = {
    "shrink_n": (8, 32),
    "shrink_k": (128, 256, 512),
    "splits": (1, 4, 16),
    "expand_n": (32, 64, 256),
    "warps": (2, 8),
}

# And of what `fast` takes for many rows, K whole.
MANY_FIELDS: dict[str, tuple[int, ...]] = {
    "block_m": (16, 32, 128),
    "shrink_k": (32, 128),
    "expand_n": (32, 128),
    "warps": (8,),
    "shrink_stages": (2, 4),
}


def candidates(start: Tiles, *, in_features: int, max_rank: int) -> list[Tiles]:
    """List the start, each field changed alone, and the pairs that are known to pull together.

    After the start comes the matrix-vector form for each height, then the rest of both, then what
    `fast` takes for many rows and its neighbours. No candidate has more splits of K than steps, nor
    tiles taller than they can ever be filled.
    """
    rank_room = max(16, 1 << (max_rank - 1).bit_length())
    vectors = [
        matrix_vector_tiles(rows, in_features=in_features, max_rank=max_rank)
        for rows in VECTOR_HEIGHTS
    ]
    fields: dict[str, Sequence[int]] = {
        "block_m": (16, 32, 64, 128),
        "shrink_n": (16, 32, 64, 128),
        "shrink_k": (64, 128, 256),
        "splits": (1, 2, 4, 8, 16),
        "expand_n": (32, 64, 128, 256),
        "expand_r": (16, 32, 64, 128),
        "warps": (2, 4, 8),
        "shrink_stages": (2, 3, 4),
    }
    found = [start, *vectors]
    for name, values in fields.items():
        found += [start._replace(**{name: value}) for value in values]
    for shrink_k in fields["shrink_k"]:
        found += [start._replace(shrink_k=shrink_k, splits=splits) for splits in fields["splits"]]
    for expand_n in fields["expand_n"]:
        found += [start._replace(expand_n=expand_n, warps=warps) for warps in fields["warps"]]
    for tiles in (vectors[0], vectors[-1]):
        for name, values in VECTOR_FIELDS.items():
            found += [tiles._replace(**{name: value}) for value in values]
    many = choose_tiles(SgmvMode.FAST, rows=2048, in_features=in_features, max_rank=max_rank)
    found.append(many)
    for name, values in MANY_FIELDS.items():
        found += [many._replace(**{name: value}) for value in values]
    fitting = [
        tiles
        for tiles in found
        if tiles.shrink_n <= rank_room
        and tiles.expand_r <= rank_room
        and tiles.splits <= max(1, in_features // tiles.shrink_k)
    ]
    return list(dict.fromkeys(fitting))


def measure(
    results: Results,
    *,
    deadline: float,
    repetitions: int,
    layers: Sequence[str] | None = None,
    ranks: Sequence[int] | None = None,
) -> None:
    """Time the candidates shape by shape until the time is up; print the best of each.

    A command has time for a shape or two: `layers` and `ranks` say which.
    """
    on_gpu = results.device.type == "cuda"
    if on_gpu:
        qkv, o, gate_up, down = LLAMA_8B
        shapes = [
            (layer, rank)
            for rank in ranks or RANKS
            for layer in (qkv, down, gate_up, o)
            if layers is None or layer.name in layers
        ]
    else:
        shapes = [(TINY[1], 16)]
    for number, (layer, rank) in enumerate(shapes):
        if time.monotonic() > deadline:
            print(f"time is up: {len(shapes) - number} shapes of {QUESTION} left out")
            return
        _measure_shape(layer, rank, results, deadline, repetitions)
        results.write()


def _measure_shape(
    layer: Layer, rank: int, results: Results, deadline: float, repetitions: int
) -> None:
    on_gpu = results.device.type == "cuda"
    start = choose_tiles(SgmvMode.INVARIANT, rows=16, in_features=layer.in_features, max_rank=rank)
    choices = candidates(start, in_features=layer.in_features, max_rank=rank)
    if on_gpu:
        cases = [
            *(decode_case(Workload.UNIFORM, layer, rows, rank) for rows in (1, 4, 16, 64)),
            decode_case(Workload.DISTINCT, layer, 64, rank),
            prefill_case(layer, [256, 256], rank=rank),
            prefill_case(layer, [2048], rank=rank),
        ]
    else:
        choices = choices[:2]
        cases = [decode_case(Workload.UNIFORM, layer, 3, rank, dtype="float16")]
    times: dict[Tiles, list[float]] = {}
    for case in cases:
        measured = _time_case(case, choices, results, deadline, repetitions)
        for tiles, middle in measured.items():
            times.setdefault(tiles, []).append(middle)
        if measured:
            best = min(measured, key=lambda tiles: measured[tiles])
            print(f"  {case.rows:5} rows: {measured[best]:8.2f} us with {best}")
            vectors = [tiles for tiles in measured if tiles.block_m < MIN_TILE]
            if vectors:
                best = min(vectors, key=lambda tiles: measured[tiles])
                print(f"             {measured[best]:8.2f} us with vectors at best, {best}")
            print(f"             {measured.get(start, math.nan):8.2f} us with the start, {start}")
    complete = {tiles: each for tiles, each in times.items() if len(each) == len(cases)}
    if complete:
        best = min(complete, key=lambda tiles: sum(map(math.log, complete[tiles])))
        print(f"  one choice for all, for invariant: {best}")


def _time_case(
    case: Case, choices: Sequence[Tiles], results: Results, deadline: float, repetitions: int
) -> dict[Tiles, float]:
    device = results.device
    cost = sgmv_cost(
        case.segments,
        case.slice_ranks,
        in_features=case.layer.in_features,
        widths=case.layer.widths,
    )
    print(f"\n{case.config}; {case.rows} rows; {len(choices)} choices")
    pool = [make_problem(case, device, seed=2 + i) for i in range(sets_needed(cost.bytes, device))]
    found: dict[Tiles, float] = {}
    for tiles in choices:
        if time.monotonic() > deadline:
            print("  time is up within the shape: the rest of its choices is left out")
            break
        provider = Sgmv("invariant", tiles)
        try:
            wrong = examine(provider, pool[0], runs=1, alone=0).wrong
            if wrong is not None:
                print(f"  WRONG {tiles}: {wrong}")
                continue
            plan = provider.plan(pool[0])
            calls = {"ours": [provider.bind(own, plan) for own in pool]}
            samples = (
                graph_times(calls, repetitions=repetitions)
                if device.type == "cuda"
                else eager_times(calls, device, repetitions=repetitions, at_once=1)
            )["ours"]
        except Exception as error:  # noqa: BLE001 - too much shared memory, for one
            print(f"  FAILED {tiles}: {error!r:.200}")
            continue
        found[tiles] = statistics.median(samples)
        results.add(
            QUESTION,
            " ".join(f"{name}={value}" for name, value in tiles._asdict().items()),
            "time in a graph",
            case.rows,
            samples,
            unit="us",
            config=case.config,
        )
    return found

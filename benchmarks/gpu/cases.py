"""The cases that the operator is measured on, those that tell most first: any run may be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.gpu.workloads import (
    LLAMA_8B,
    LLAMA_70B,
    PUNICA,
    TINY,
    Workload,
    decode_case,
    dora_case,
    mixed_rank_case,
    prefill_case,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from benchmarks.gpu.workloads import Case, Layer

ROWS = (1, 2, 4, 8, 16, 32, 64)
RANKS = (8, 16, 32, 64, 128)
PROMPTS = (128, 256, 512, 1024, 2048, 4096, 8192)
# The fused groups with more than one slice, of both models.
GRID = (LLAMA_8B[0], LLAMA_8B[2], LLAMA_70B[0], LLAMA_70B[2])


def all_cases() -> list[Case]:
    """List what a plain run measures."""
    return _once(_plain())


def full_cases() -> list[Case]:
    """List those of a plain run, then the rest of the whole grid."""
    return _once([*_plain(), *_grid()])


def only_in_the_grid() -> frozenset[tuple[str, int]]:
    """Name by config and rows what a plain run leaves out: kept briefly, there is so much of it."""
    plain = {(case.config, case.rows) for case in all_cases()}
    return frozenset((case.config, case.rows) for case in full_cases()) - plain


def _once(cases: Iterable[Case]) -> list[Case]:
    """Keep the first of those that results couldn't tell apart: with one row all are the same."""
    kept: dict[tuple[str, int], Case] = {}
    for case in cases:
        kept.setdefault((case.config, case.rows), case)
    return list(kept.values())


def _decodes(layer: Layer, rows: Sequence[int], rank: int) -> Iterator[Case]:
    for count in rows:
        for workload in Workload if count > 1 else (Workload.DISTINCT,):
            yield decode_case(workload, layer, count, rank)


def _plain() -> Iterator[Case]:
    qkv, o, gate_up, down = LLAMA_8B
    for layer in (PUNICA, qkv, gate_up, down, o):
        yield from _decodes(layer, (64, 1, 16, 4), 16)
    for layer in (PUNICA, qkv):
        yield dora_case(Workload.UNIFORM, layer, 64, 16)
    yield from _decodes(PUNICA, (32, 8, 2), 16)
    for rank in (64, 8, 128, 32):
        for workload in (Workload.DISTINCT, Workload.IDENTICAL):
            yield decode_case(workload, qkv, 64, rank)
    for workload in (Workload.DISTINCT, Workload.SKEWED):
        yield mixed_rank_case(workload, qkv, 64)
    for tokens in (512, 2048, 128, 8192):
        yield prefill_case(qkv, [tokens])
        yield prefill_case(qkv, [tokens // 4] * 4)
    yield prefill_case(qkv, [2048], rank=64)
    yield prefill_case(gate_up, [512] * 4)
    for layer in (qkv, down):
        yield prefill_case(layer, [512, 256], decodes=32, backbone=8)
    for layer in LLAMA_70B:
        for workload in (Workload.DISTINCT, Workload.UNIFORM):
            yield decode_case(workload, layer, 64, 16)


def _grid() -> Iterator[Case]:
    for layer in GRID:
        for rank in RANKS:
            yield from _decodes(layer, ROWS[::-1], rank)
        for rows in ROWS[:0:-1]:
            for workload in Workload:
                yield mixed_rank_case(workload, layer, rows)
        for tokens in PROMPTS:
            for rank in (16, 64, 128):
                yield prefill_case(layer, [tokens], rank=rank)
            yield prefill_case(layer, [tokens // 4] * 4)


def counted_cases() -> list[Case]:
    """List those whose launches are counted: one slice and three, one adapter and many."""
    return [
        decode_case(workload, layer, 64, 16)
        for layer in (PUNICA, LLAMA_8B[0])
        for workload in Workload
    ]


def tiny_cases() -> list[Case]:
    """List a few that take every provider through every branch, in the interpreter's patience."""
    stacked, single = TINY
    return [
        decode_case(Workload.SKEWED, stacked, 4, 16, dtype="float16"),
        mixed_rank_case(Workload.UNIFORM, single, 3, dtype="float16"),
        dora_case(Workload.DISTINCT, stacked, 3, 16, dtype="float16"),
        prefill_case(stacked, [5, 3], decodes=2, backbone=1, dtype="float16"),
    ]

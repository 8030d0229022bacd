"""Measure engines for constrained answers: size, import, compiling, masks, hostile schemas.

    PYTHONPATH=X:O python -m benchmarks.constraint_engines    # writes constraint_engines.csv

X and O are folders into which xgrammar (with apache-tvm-ffi) and outlines-core were installed by
`pip install --no-deps --target`: only llguidance is a dependency of ours. SmolLM2's vocabulary of
49,152 tokens. Hostile schemas run in a process each, which is ended after 10 s; what becomes of
them is the metric "hostile: ...", in milliseconds for compiling, a mask and 200 tokens drawn.
"""

from __future__ import annotations

import importlib.metadata
import multiprocessing
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from transformers import AutoTokenizer

from aril.demo.model import ensure_model
from benchmarks.constraint_engines.providers import PROVIDERS
from benchmarks.constraint_engines.schemas import HOSTILE, TYPICAL
from benchmarks.record import Row, keep
from benchmarks.turns import in_turns, milliseconds

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from benchmarks.constraint_engines.providers import Engine

QUESTION: Final = "constraint_engines"
VOCAB: Final = 49_152
TURNS: Final = 7
PATIENCE_SECONDS: Final = 10.0
DRAWN_TOKENS: Final = 200
PACKAGES: Final = {
    "llguidance": ("llguidance",),
    "xgrammar": ("xgrammar", "apache-tvm-ffi"),
    "outlines_core": ("outlines-core",),
}


def config_of(provider: str) -> str:
    """Name the versions that were measured."""
    told = [f"{name} {importlib.metadata.version(name)}" for name in PACKAGES[provider]]
    return f"{', '.join(told)}; {VOCAB} tokens"


def row(provider: str, metric: str, x: object, samples: list[float], unit: str) -> Row:
    """Make one figure."""
    return Row.of(
        samples,
        question=QUESTION,
        provider=provider,
        metric=metric,
        x=x,
        unit=unit,
        config=config_of(provider),
    )


def size_of(provider: str) -> list[Row]:
    """Bytes on disk, and seconds and modules of an import in a fresh process."""
    files = [
        Path(str(file.locate()))
        for name in PACKAGES[provider]
        for file in importlib.metadata.files(name) or ()
        if "__pycache__" not in str(file)
    ]
    mebibytes = sum(file.stat().st_size for file in files if file.exists()) / 2**20
    code = (
        "import sys, time; begun = time.perf_counter()\n"
        f"import {provider}\nprint(time.perf_counter() - begun, 'torch' in sys.modules)"
    )
    told = [
        subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", code], capture_output=True, check=True, text=True
        ).stdout.split()
        for _ in range(3)
    ]
    return [
        row(provider, "installed", "", [mebibytes], "MiB"),
        row(
            provider,
            "import",
            f"torch: {told[0][1]}",
            [1e3 * float(each[0]) for each in told],
            "ms",
        ),
    ]


def typical(engines: dict[str, Engine], tokenizer: Any) -> list[Row]:
    """Compile each schema and walk along its answer, engines in turns."""
    rows: list[Row] = []
    for name, case in TYPICAL.items():
        ids = tokenizer.encode(case.answer, add_special_tokens=False)
        able: dict[str, Engine] = {}
        for provider, engine in engines.items():
            try:
                walk = engine.walk(engine.compile(case.schema))
                taken = all(walk.take(token) for token in ids)
            except (ValueError, TypeError, NotImplementedError):
                taken = False
            rows.append(row(provider, "takes the answer", name, [float(taken)], "of 1"))
            if taken:
                able[provider] = engine

        compiled = in_turns(
            {each: partial(_compiling, engine, case.schema) for each, engine in able.items()}, TURNS
        )
        walked = in_turns(
            {each: partial(_walking, engine, case.schema, ids) for each, engine in able.items()},
            TURNS,
        )
        for provider in able:
            masks = walked[provider]
            rows += [
                row(provider, "compile", name, compiled[provider], "ms"),
                row(provider, "mask", name, [took for walk in masks for took in walk], "us"),
                row(provider, "slowest mask", name, [max(walk) for walk in masks], "us"),
            ]
    return rows


def _compiling(engine: Engine, schema: dict[str, Any]) -> float:
    return milliseconds(partial(engine.compile, schema))


def _walking(engine: Engine, schema: dict[str, Any], ids: list[int]) -> list[float]:
    walk, took = engine.walk(engine.compile(schema)), []
    for token in ids:
        took.append(1e3 * milliseconds(walk.fill))
        walk.take(token)
    return took


def _suffer(connection: Connection, engine: Engine, schema: dict[str, Any]) -> None:
    try:
        walk = engine.walk(engine.compile(schema))
        chance = random.Random(1)
        mask = engine.tensor.numpy().view(np.uint8)  # type: ignore[attr-defined]
        for _ in range(DRAWN_TOKENS):
            walk.fill()
            allowed = np.unpackbits(mask[0], bitorder="little").nonzero()[0]
            if not len(allowed) or not walk.take(int(chance.choice(allowed))):
                break
    except Exception:  # noqa: BLE001 - an engine's own, of any kind
        connection.send("refused")
    else:
        connection.send("served")


def hostile(provider: str, engine: Engine) -> list[Row]:
    """Give it what a hostile tenant sends, each in a process of its own."""
    rows = []
    for name, schema in HOSTILE.items():
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.Process(target=_suffer, args=(theirs, engine, schema))
        begun = time.perf_counter()
        child.start()
        theirs.close()
        child.join(PATIENCE_SECONDS)
        took = 1e3 * (time.perf_counter() - begun)
        if child.is_alive():
            child.kill()
            child.join()
            outcome = "not in 10 s"
        elif child.exitcode:
            outcome = "process died"
        else:
            outcome = ours.recv()
        rows.append(row(provider, f"hostile: {outcome}", name, [took], "ms"))
    return rows


def main() -> None:
    """Measure all of it."""
    tokenizer = AutoTokenizer.from_pretrained(ensure_model())
    multiprocessing.set_start_method("fork")  # an engine cannot be sent to another process
    rows: list[Row] = []
    engines: dict[str, Engine] = {}
    for provider, make in PROVIDERS.items():
        rows += size_of(provider)
        begun = time.perf_counter()
        engines[provider] = make(tokenizer, VOCAB)
        took = 1e3 * (time.perf_counter() - begun)
        rows.append(row(provider, "tokenizer", VOCAB, [took], "ms"))
    for provider, engine in engines.items():
        rows += hostile(provider, engine)
    keep(QUESTION, [*rows, *typical(engines, tokenizer)])


if __name__ == "__main__":
    main()

"""Measure what an engine does to the event loop that feeds it: in a thread, and in a process.

    python -m benchmarks.event_loop_lag    # writes event_loop_lag.csv

A loop has a timer of 10 ms and packs a reply record for each token, beside an engine that runs a
model of SmolLM2-135M's shapes (random weights, 16 rows, one token each) and samples, without pause.
Lateness is how much later than asked the timer came back. The ways take turns, so that other load
on the machine meets all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import multiprocessing
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from aril.schemas import Epoch, Sampling, TokensRecord, encode_reply
from aril.worker.engine.request import GenerationRequest, Output
from aril.worker.engine.runner import EngineThread
from aril.worker.engine.sampler import sample
from aril.worker.engine.sequence import TokenSequence
from benchmarks.record import Row, keep
from benchmarks.smollm2 import random_smollm2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection

QUESTION = "event_loop_lag"
ROWS = 16
TICK = 0.010
WAYS = ("no engine", "thread", "thread, switch interval 0.5 ms", "process")


class ModelEngine:
    """Runs one token of each row through the model and samples, for ever until cancelled."""

    def __init__(self) -> None:
        self._model = random_smollm2()
        self._sequences: dict[int, TokenSequence] = {}

    @property
    def has_work(self) -> bool:
        """Whether any row runs."""
        return bool(self._sequences)

    def submit(self, request: GenerationRequest) -> None:
        """Take a row."""
        self._sequences[request.key] = TokenSequence(request)

    def cancel(self, key: int) -> None:
        """End a row."""
        self._sequences.pop(key, None)

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Run the model once."""
        rows = list(self._sequences.values())
        last = [row.tokens(row.length - 1, 1) for row in rows]
        logits = self._model(input_ids=torch.tensor(last), use_cache=False).logits[:, -1]
        outputs = []
        for row, token in zip(rows, sample(logits.float(), rows).ids, strict=True):
            row.append((token,))
            outputs.append(Output(row.key, (token,), "word "))
        return outputs


def requests() -> list[GenerationRequest]:
    """Build rows that never end."""
    sampling = Sampling(temperature=0.7, top_k=50, max_tokens=131_072)
    return [
        GenerationRequest(key=key, prompt_ids=(1,), sampling=sampling, seed=key, adapter=None)
        for key in range(ROWS)
    ]


@dataclass
class Meter:
    """What the loop saw in one run."""

    late_ms: list[float] = field(default_factory=list)
    steps: int = 0
    index: int = 0

    def on_outputs(self, outputs: Sequence[Output]) -> None:
        """Pack a record for each token, as the publisher does."""
        self.steps += len(outputs) // ROWS
        for output in outputs:
            self.index += 1
            encode_reply(
                TokensRecord(
                    job="3b241101-e2bb-4255-8caf-4136c566a962",
                    epoch=Epoch(1, 1),
                    worker="host-4711",
                    index=self.index,
                    ids=output.ids,
                    text=output.text,
                )
            )

    async def tick(self, seconds: float) -> None:
        """Note how late a timer comes back."""
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            await asyncio.sleep(TICK)
            self.late_ms.append((time.perf_counter() - begun - TICK) * 1e3)


async def beside_thread(engine: ModelEngine, meter: Meter, seconds: float) -> None:
    """Run the engine in a thread of this process."""
    thread = EngineThread(engine)

    def failed(error: BaseException) -> None:
        raise error

    thread.start(asyncio.get_running_loop(), on_outputs=meter.on_outputs, on_failure=failed)
    thread.submit(requests())
    await meter.tick(seconds)
    for key in range(ROWS):
        thread.cancel(key)
    await asyncio.to_thread(thread.close, drain=True)


async def beside_process(child: Connection, meter: Meter, seconds: float) -> None:
    """Let the child process run its engine and read outputs from its pipe."""
    loop = asyncio.get_running_loop()
    loop.add_reader(child.fileno(), lambda: meter.on_outputs(child.recv()))
    child.send("run")
    await meter.tick(seconds)
    child.send("rest")
    await asyncio.sleep(0.5)
    loop.remove_reader(child.fileno())


def serve(parent: Connection, threads: int) -> None:
    """Be the child process: run steps between `run` and `rest`, end at `end`."""
    torch.set_num_threads(threads)
    engine = ModelEngine()
    for request in requests():
        engine.submit(request)
    parent.send(engine.step())
    while (command := parent.recv()) == "run":
        while not parent.poll():
            parent.send(engine.step())
        command = parent.recv()
    if command != "end":
        raise RuntimeError(f"{command!r} was not expected")


@contextmanager
def child_process(threads: int) -> Iterator[Connection]:
    """Start the child and wait until its model has run once."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, threads))
    process.start()
    try:
        ours.recv()
        yield ours
    finally:
        ours.send("end")
        process.join()


async def run_way(
    way: str, engine: ModelEngine, child: Connection, seconds: float, switch: float
) -> Meter:
    """Measure one way once."""
    meter = Meter()
    if way == "no engine":
        await meter.tick(seconds)
    elif way == "process":
        await beside_process(child, meter, seconds)
    else:
        sys.setswitchinterval(0.0005 if "switch" in way else switch)
        await beside_thread(engine, meter, seconds)
        sys.setswitchinterval(switch)
    return meter


def rows_of(way: str, meters: Sequence[Meter], seconds: float, threads: int) -> list[Row]:
    """Make the CSV's rows of one way."""
    row = functools.partial(
        Row.of,
        question=QUESTION,
        provider=way,
        x=ROWS,
        config=f"{len(meters)} runs of {seconds:g} s, tick 10 ms, torch threads {threads}",
    )
    percentiles = [statistics.quantiles(meter.late_ms, n=100) for meter in meters]
    rows = [
        row([each[49] for each in percentiles], metric="lateness, p50", unit="ms"),
        row([each[98] for each in percentiles], metric="lateness, p99", unit="ms"),
        row([max(meter.late_ms) for meter in meters], metric="lateness, worst", unit="ms"),
    ]
    if way != "no engine":
        steps = [seconds * 1e3 / max(1, meter.steps) for meter in meters]
        rows.append(row(steps, metric="step", unit="ms"))
    return rows


def main() -> None:
    """Measure all ways in turn and write the CSV."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    engine = ModelEngine()
    meters: dict[str, list[Meter]] = {way: [] for way in WAYS}
    with child_process(arguments.threads) as child:
        for _ in range(arguments.runs):
            for way in WAYS:
                measured = run_way(way, engine, child, arguments.seconds, sys.getswitchinterval())
                meters[way].append(asyncio.run(measured))
    rows = [
        row
        for way in WAYS
        for row in rows_of(way, meters[way], arguments.seconds, arguments.threads)
    ]
    keep(QUESTION, rows)


if __name__ == "__main__":
    main()

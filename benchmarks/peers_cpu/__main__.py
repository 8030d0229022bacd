"""Measure Aril beside what else serves adapters on a CPU, each answering the same requests.

    python -m benchmarks.peers_cpu [--cases A,B] [--peers A,B] [--rounds 3] [--older CHECKOUT]

SmolLM2-135M and the demo's adapters; writes peers_cpu.csv. Every peer is first asked what PEFT has
answered, and left out, loudly, where its answers are others. Then rounds: each case by each peer in
turn. PEFT itself is measured where it is named. A measurement beside foreign load is taken again.
`--older` names a checkout of another build of Aril, which then takes part as "Aril older f32".
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.demo.model import ensure_model
from benchmarks.peers_cpu.machine import wait_for_quiet
from benchmarks.peers_cpu.peer import Peer
from benchmarks.peers_cpu.workload import CASES, MIXED, Workload
from benchmarks.record import Row, keep, ratios
from benchmarks.smollm2 import DEMO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.peers_cpu.peer import Answered

QUESTION: Final = "peers_cpu"
ROOT: Final = Path(__file__).parent.parent.parent
FOREIGN: Final = 0.06  # of the machine, by others
PATIENCE: Final = 120.0  # seconds
TRIES: Final = 3
WARM: Final = 8  # tokens
ALIKE: Final = 0.5  # share of tokens before the first that differs; another adapter's have far less

OURS: Final = "Aril"
OLDER: Final = "Aril older f32"
REFERENCE: Final = "PEFT f32"
NAMES: Final = (
    OURS,
    "Aril f32",
    "Aril worker",
    "Aril worker f32",
    "OpenVINO GenAI bf16",
    "OpenVINO GenAI f32",
    "vLLM bf16",
    "vLLM f32",
    "llama.cpp bf16",
    "llama.cpp q8_0",
    REFERENCE,
)
USUAL: Final = (
    OURS,
    "Aril f32",
    "Aril worker f32",
    "OpenVINO GenAI bf16",
    "vLLM bf16",
    "llama.cpp bf16",
)
_TYPES: Final = {"f32": "float32", "bf16": "bfloat16"}


def start(name: str, peers: Path, older: Path | None) -> Peer:
    """Start a peer by its name in `NAMES`, out of the folder that setup.sh has filled."""
    adapters, model, kind = str(DEMO), str(ensure_model()), name.rpartition(" ")[2]
    dtype = _TYPES.get(kind, "auto")  # whoever does not name one is Aril
    own, path = Path(sys.executable), ""
    if name.startswith(OURS):
        program = "aril_worker" if "worker" in name else "aril_engine"
        words = model, adapters, dtype
        path = str(older if older is not None and name == OLDER else ROOT)
    elif name.startswith("OpenVINO"):
        own, program = peers / "openvino/bin/python", "openvino_batches"
        words = str(peers / "openvino/model"), adapters, dtype
    elif name.startswith("vLLM"):
        own, program, words = peers / "vllm/bin/python", "vllm_engine", (model, adapters, dtype)
    elif name.startswith("llama"):
        program = "llama_server"
        binary, made = peers / "llama/made/bin/llama-server", peers / "gguf"
        words = str(binary), str(made / f"model-{kind}.gguf"), str(made / "adapters")
    else:
        program, words = "peft_generate", (model, adapters, dtype)
    logs = peers / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return Peer(name, program, words, python=own, logs=logs, path=path)


class Alike(NamedTuple):
    """How much of the reference's answers a peer gives, by adapter: shares of tokens."""

    shares: dict[str, float]

    @classmethod
    def of(cls, found: Sequence[list[int]], wanted: Sequence[list[int]], stop: int = 2) -> Alike:
        """Compare answers to `Workload.checks`, each up to the reference's end of text."""
        shares = defaultdict(list)
        for row, (ids, reference) in enumerate(zip(found, wanted, strict=True)):
            whole = reference[: reference.index(stop)] if stop in reference else reference
            differ = (i for i, pair in enumerate(zip(ids, whole, strict=False)) if len({*pair}) > 1)
            length = max(1, len(whole))
            shares[MIXED[row % len(MIXED)] or "backbone"].append(next(differ, length) / length)
        return cls({adapter: mean(each) for adapter, each in shares.items()})

    @property
    def enough(self) -> bool:
        """Whether nothing but rounding can be behind what differs."""
        return min(self.shares.values()) >= ALIKE


def checked(peers: Sequence[Peer], workload: Workload, wanted: Sequence[list[int]]) -> list[Peer]:
    """Return the peers whose answers are the reference's."""
    checks = workload.checks()
    right = []
    for peer in peers:
        alike = Alike.of(peer.ask(checks).ids, wanted)
        shown = ", ".join(f"{adapter} {share:.2f}" for adapter, share in alike.shares.items())
        print(f"{peer.name}: alike {shown}", file=sys.stderr)
        if alike.enough:
            right.append(peer)
        else:
            print(f"{peer.name} is left out: its answers are others", file=sys.stderr)
    return right


def measured(peer: Peer, case: str, number: int, workload: Workload) -> Answered:
    """Run a case once, again where others used the machine; each time with other requests."""
    for attempt in range(TRIES):
        wait_for_quiet(FOREIGN, PATIENCE)
        found = peer.ask(workload.requests(case, number + 1_000 * attempt))
        if found.foreign <= FOREIGN:
            return found
    print(f"{peer.name}, {case}: beside foreign load of {found.foreign:.2f}", file=sys.stderr)
    return found


def summed(name: str, peer: Peer, case: str, runs: Sequence[Answered]) -> Iterator[Row]:
    """Yield the figures of one peer in one case."""
    asked = CASES[case]
    config = (
        f"SmolLM2-135M, {asked.rows} requests of {asked.prompt or '32-64'} + {asked.new} tokens"
    )

    def row(metric: str, unit: str, samples: list[float]) -> Row:
        return Row.of(
            samples,
            question=QUESTION,
            provider=name,
            metric=metric,
            x=case,
            unit=unit,
            config=f"{config}, 2 threads, {peer.version}",
        )

    yield row("new tokens/s", "1/s", [run.tokens / run.seconds for run in runs])
    if asked.prompt:
        prompt = asked.rows * asked.prompt
        yield row("prompt tokens/s", "1/s", [prompt / run.seconds for run in runs])
    yield row("first token p50", "ms", [1e3 * run.first for run in runs])
    if asked.new > 1:
        yield row("between tokens p50", "ms", [1e3 * run.gap(0.5) for run in runs])
        yield row("between tokens p99", "ms", [1e3 * run.gap(0.99) for run in runs])
    yield row("memory, the most so far", "MB", [peer.peak_megabytes()])


def measure(
    names: Sequence[str], cases: Sequence[str], rounds: int, folder: Path, older: Path | None
) -> list[Row]:
    """Start, check, measure."""
    workload = Workload(ensure_model())
    with ExitStack() as held:
        peers = [held.enter_context(closing(start(name, folder, older))) for name in names]
        with closing(start(REFERENCE, folder, older)) as reference:
            wanted = reference.ask(workload.checks()).ids
        peers = checked(peers, workload, wanted)
        for case in cases:
            for peer in peers:  # to warm up
                requests = workload.requests(case, 0)
                peer.ask([each._replace(new=min(each.new, WARM)) for each in requests])
        runs: dict[tuple[str, str], list[Answered]] = defaultdict(list)
        for number in range(1, rounds + 1):
            for case in cases:
                for peer in peers:
                    found = measured(peer, case, number, workload)
                    runs[case, peer.name].append(found)
                    rate = found.tokens / found.seconds
                    print(f"{case} {peer.name}: {rate:.1f} tokens/s", file=sys.stderr)
        rows: list[Row] = []
        for case in cases:
            for peer in peers:
                rows += summed(peer.name, peer, case, runs[case, peer.name])
            rows += beside(case, {peer.name: runs[case, peer.name] for peer in peers})
        return rows


def beside(case: str, runs: dict[str, list[Answered]]) -> Iterator[Row]:
    """Yield how many times as many tokens a second Aril makes as each other one, by round."""
    if OURS not in runs:
        return
    ours = [run.tokens / run.seconds for run in runs[OURS]]
    for name, theirs in runs.items():
        if name != OURS:
            yield Row.of(
                ratios(ours, [run.tokens / run.seconds for run in theirs]),
                question=QUESTION,
                provider=f"{OURS} / {name}",
                metric="ratio of tokens/s",
                x=case,
                unit="1",
                config="SmolLM2-135M, 2 threads",
            )


def main() -> None:
    """Read the words of the command."""
    words = argparse.ArgumentParser(prog="python -m benchmarks.peers_cpu")
    words.add_argument("--folder", type=Path, default=ROOT / "build" / "peers-cpu")
    words.add_argument("--peers", default=",".join(USUAL), help=f"of {', '.join(NAMES)}")
    words.add_argument("--cases", default=",".join(CASES))
    words.add_argument("--rounds", type=int, default=3)
    words.add_argument("--older", type=Path, help="a checkout of another build of Aril")
    given = words.parse_args()
    names, cases = given.peers.split(","), given.cases.split(",")
    if unknown := [*({*names} - {*NAMES}), *({*cases} - {*CASES})]:
        words.error(f"unknown: {', '.join(unknown)}")
    if given.older is not None:
        names.append(OLDER)
    keep(QUESTION, measure(names, cases, given.rounds, given.folder, given.older))


if __name__ == "__main__":
    main()

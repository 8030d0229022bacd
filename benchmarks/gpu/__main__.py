"""Run the GPU benchmarks: `python -m benchmarks.gpu`, in as many commands as they need.

Correctness comes first; if it fails nothing is timed and the exit status is 1. Each case is written
when it is done, and no case starts after --minutes: the same command with --resume goes on where
the last one stopped, on the same device and with the same code. Where a machine empties $OUT
between calls, put what came back into a folder that travels there, and name it:
`--resume benchmarks/results` reads those rows and writes them, with the new ones, to --out.

A provider that fails is noted and left out of its case. If the device itself stops working, what
there is is written and the exit status is 1; --resume then leaves the culprit out of that case.
Without a GPU only --rehearse runs: the same way, tiny, in Triton's interpreter, into a temporary
folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.gpu import correctness
from benchmarks.gpu.cases import RANKS
from benchmarks.gpu.failures import DeviceLost
from benchmarks.gpu.results import Results, code_version, results_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.gpu.layer import LayerCase
    from benchmarks.gpu.sequences import Shape
    from benchmarks.gpu.trial import Measurable
    from benchmarks.gpu.workloads import Case

TABLES = ("correctness", "sgmv", "attention", "layer")
ON_REQUEST = ("engine",)  # a whole model, which has to be made first
TESTS = "tests/benchmarks/test_gpu_kernels.py"
ROOT = Path(__file__).parents[2]
CHECKED = "gpu_correctness"
TILES = ("sgmv_tiles", "attention_tiles")
RESUMED = ("gpu_roofs", "layer_gpu", "sgmv_gpu", "attention_gpu", *TILES, CHECKED)


def main() -> int:
    """Parse, check, measure."""
    options = _options()
    on_gpu = torch.cuda.is_available() and not options.rehearse
    if not on_gpu and not options.rehearse:
        print("no CUDA device: only --rehearse runs here", file=sys.stderr)
        return 2
    if not on_gpu:
        os.environ["TRITON_INTERPRET"] = "1"  # read when a kernel is decorated, so before imports
    wanted = {"sweep"} if options.sweep else set(TABLES)
    if options.only:
        wanted = set(options.only)
    if options.rehearse:
        print("REHEARSAL in Triton's interpreter: times mean nothing and are kept nowhere")
    started = time.monotonic()
    results = _results(options, on_gpu=on_gpu)
    if "correctness" in wanted and (status := _check(results)) != 0:
        print("the kernels are not right here: nothing is timed", file=sys.stderr)
        return status
    try:
        if wanted - {"correctness"}:
            _measure(options, wanted, results, deadline=started + 60 * options.minutes)
    except DeviceLost as lost:
        print(f"{lost}; what there is is in {results.folder}", file=sys.stderr)
        return 1
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=(*TABLES, *ON_REQUEST),
        help="one table; may be given again; engine is measured on request alone",
    )
    parser.add_argument(
        "--sweep",
        nargs="?",
        const="all",
        choices=("all", "sgmv", "attention"),
        help="tile choices of our kernels (default: of both), and nothing else",
    )
    parser.add_argument(
        "--full", action="store_true", help="the operator's whole grid behind the plain cases"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FOLDER",
        help="keep the rows of FOLDER's CSVs (default: those of --out) and skip what they have",
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="PROVIDER",
        help="leave one out, say for a hang; may be given again",
    )
    parser.add_argument("--rehearse", action="store_true", help="tiny, on the CPU; no result")
    parser.add_argument("--minutes", type=float, default=8.5, help="no case starts after that")
    parser.add_argument("--peers", type=Path, default=ROOT / "build/peers", help="peers' sources")
    parser.add_argument(
        "--out", default=os.environ.get("OUT"), help="folder for the CSVs (default: $OUT, results)"
    )
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="NAME",
        help="of the sweep: those whose names have this in them, as qkv or decode; likewise",
    )
    parser.add_argument(
        "--rank",
        action="append",
        default=[],
        type=int,
        choices=RANKS,
        help="of the sweep: this rank; likewise",
    )
    options = parser.parse_args()
    if options.sweep and (options.only or options.full):
        parser.error("--sweep is a run of its own, without --only and --full")
    if options.rehearse and options.resume is not None:
        parser.error("a rehearsal keeps nothing that could be resumed")
    return options


def _results(options: argparse.Namespace, *, on_gpu: bool) -> Results:
    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    folder = results_folder(options.out, rehearsal=options.rehearse)
    results = Results(device, folder, rehearsal=options.rehearse, code=code_version(options.peers))
    if options.resume is not None:
        results.resume(Path(options.resume or folder), RESUMED)
    return results


def _check(results: Results) -> int:
    """Run the kernels' tests unless this code has passed them on this device."""
    if results.done(CHECKED, TESTS, 1):
        print("the kernels' tests passed here before, with this code")
        return 0
    status = correctness.check_kernels(on_gpu=results.device.type == "cuda")
    if status == 0:
        results.begin(CHECKED, TESTS, 1)
        results.add(CHECKED, "Aril", "passed", 1, [1], unit="1", config=TESTS)
        results.write()
    return status


def _measure(
    options: argparse.Namespace, wanted: set[str], results: Results, *, deadline: float
) -> None:
    on_gpu = results.device.type == "cuda"
    left = 0
    if "sweep" in wanted:
        from benchmarks.gpu import sweep  # noqa: PLC0415 - Triton by now knows where it runs

        left = sweep.measure(
            results,
            options.sweep,
            names=options.shape,
            ranks=options.rank,
            deadline=deadline,
            minutes=options.minutes,
            repetitions=20 if on_gpu else 1,
        )
    if "engine" in wanted:
        _measure_engine(results, on_gpu=on_gpu)
    if wanted & {"layer", "sgmv", "attention"}:
        left = _measure_kernels(options, wanted, results, deadline)
    results.write()
    print(f"\nwritten to {results.folder}: {', '.join(sorted(results.rows))}")
    if left:
        print(f"{left} cases are left: the same command with --resume goes on")


def _measure_engine(results: Results, *, on_gpu: bool) -> None:
    if correctness.check_engine(on_gpu=on_gpu) != 0:
        print("the engine is not right here: it is not timed", file=sys.stderr)
        return
    from benchmarks.gpu import engine  # noqa: PLC0415 - loads transformers

    engine.measure(results, turns=5 if on_gpu else 1)


def _measure_kernels(
    options: argparse.Namespace, wanted: set[str], results: Results, deadline: float
) -> int:
    """Fill the tables that can be cut and resumed; return how many cases are left."""
    from benchmarks.gpu import attention, layer, ours, sgmv  # noqa: PLC0415 - same
    from benchmarks.gpu.peers_v2 import peer_providers  # noqa: PLC0415 - same
    from benchmarks.gpu.providers import torch_providers  # noqa: PLC0415 - same
    from benchmarks.gpu.roofs import measure_roofs  # noqa: PLC0415 - same

    on_gpu = results.device.type == "cuda"
    repetitions = 20 if on_gpu else 1
    roofs = measure_roofs(results, repetitions=repetitions)
    print(
        f"roofs measured here: {roofs.memory / 1e12:.3f} TB/s, "
        f"{roofs.products / 1e12:.1f} TFLOP/s, {roofs.launch * 1e6:.2f} us a kernel"
    )
    layers, cases, shapes = _cases(wanted, on_gpu=on_gpu, full=options.full)
    listed: dict[str, Sequence[Measurable]] = {
        layer.QUESTION: layers,
        sgmv.QUESTION: cases,
        attention.QUESTION: shapes,
    }
    missing = {}
    for question, each in listed.items():
        done = sum(results.done(question, case.config, case.rows) for case in each)
        missing[question] = len(each) - done
        print(f"{question}: {len(each)} cases, {done} of them measured before")
    providers = torch_providers() + ours.served_providers()
    if layers or cases:
        providers += peer_providers(options.peers)
    providers = [each for each in providers if each.name not in options.without]
    left = layer.measure(layers, providers, results, deadline=deadline, repetitions=repetitions)
    # The longest list: it leaves a third of the time to attention, if that has to be measured too.
    shared = missing[attention.QUESTION] > 0
    own = (2 * deadline + time.monotonic()) / 3 if shared else deadline
    left += sgmv.measure(cases, providers, results, roofs, deadline=own, repetitions=repetitions)
    ways = attention.providers(options.peers) if shapes else []
    ways = [each for each in ways if each.name not in options.without]
    left += attention.measure(
        shapes, ways, results, roofs, deadline=deadline, repetitions=repetitions
    )
    if on_gpu:  # last of all: the profiler stays, and slows what comes after
        left += sgmv.count_launches(cases, providers, results, deadline=deadline)
    if layers or cases:
        _judge(results)
    return left


def _cases(
    wanted: set[str], *, on_gpu: bool, full: bool
) -> tuple[list[LayerCase], list[Case], list[Shape]]:
    from benchmarks.gpu import cases, layer, sequences  # noqa: PLC0415 - see `_measure`

    every = cases.full_cases if full else cases.all_cases
    return (
        [] if "layer" not in wanted else layer.all_cases() if on_gpu else layer.tiny_cases(),
        [] if "sgmv" not in wanted else every() if on_gpu else cases.tiny_cases(),
        []
        if "attention" not in wanted
        else list(sequences.all_shapes() if on_gpu else sequences.tiny_shapes()),
    )


def _judge(results: Results) -> None:
    """Say which goals are met by what was measured so far."""
    from benchmarks.gpu import verdict  # noqa: PLC0415 - see `_measure`

    lines = verdict.judge({name: results.own(name) for name in verdict.TABLES})
    verdict.show(lines)
    device, versions = results.origin
    results.replace(
        verdict.QUESTION,
        verdict.rows_of(lines, device=device, versions=versions, mark=results.mark),
    )


if __name__ == "__main__":
    sys.exit(main())

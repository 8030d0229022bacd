"""Run the GPU benchmarks: `python -m benchmarks.gpu`, everything within one command's ten minutes.

Correctness comes first; if it fails nothing is timed and the exit status is 1. Without a GPU only
`--rehearse` runs: the same way through, tiny, in Triton's interpreter, into a temporary folder.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path

import torch

TABLES = ("correctness", "sgmv", "attention", "layer")
TESTS = "tests/benchmarks/test_gpu_kernels.py"
ROOT = Path(__file__).parents[2]


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
    if "correctness" in wanted and (status := _run_tests()) != 0:
        print("the kernels are not right here: nothing is timed", file=sys.stderr)
        return status
    if wanted - {"correctness"}:
        _measure(options, wanted, on_gpu=on_gpu, deadline=started + 60 * options.minutes)
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument(
        "--only", action="append", choices=TABLES, help="one table; may be given again"
    )
    parser.add_argument(
        "--sweep", action="store_true", help="tile choices of our kernels, and nothing else"
    )
    parser.add_argument(
        "--rehearse", "--tiny", action="store_true", help="tiny, on the CPU; no result"
    )
    parser.add_argument("--minutes", type=float, default=8.5, help="no case starts after that")
    parser.add_argument("--peers", type=Path, default=ROOT / "build/peers", help="peers' sources")
    parser.add_argument(
        "--out", default=os.environ.get("OUT"), help="folder for the CSVs (default: $OUT, results)"
    )
    options = parser.parse_args()
    if options.sweep and options.only:
        parser.error("--sweep is a run of its own, without --only")
    return options


def _run_tests() -> int:
    """Run the kernels' tests on the device, with nothing but pytest needed."""
    if importlib.util.find_spec("pytest") is None:
        print("pytest is missing: correctness cannot be shown", file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--noconftest"]
    command += ["-c", os.devnull, f"--rootdir={ROOT}", "--import-mode=importlib", TESTS]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode  # noqa: S603


def _measure(
    options: argparse.Namespace, wanted: set[str], *, on_gpu: bool, deadline: float
) -> None:
    # All of these import Triton, which by now knows where it runs.
    from benchmarks.gpu import attention, layer, sequences, sgmv, sweep  # noqa: PLC0415
    from benchmarks.gpu.peers_v2 import peer_providers  # noqa: PLC0415
    from benchmarks.gpu.providers import torch_providers  # noqa: PLC0415
    from benchmarks.gpu.results import Results, results_folder  # noqa: PLC0415
    from benchmarks.gpu.roofs import measure_roofs  # noqa: PLC0415

    device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")
    folder = results_folder(options.out, rehearsal=options.rehearse)
    results = Results(device, folder, rehearsal=options.rehearse)
    repetitions = 20 if on_gpu else 1
    if "sweep" in wanted:
        sweep.measure(results, deadline=deadline, repetitions=repetitions)
        results.write()
        print(f"\nwritten to {folder}")
        return
    roofs = measure_roofs(results, repetitions=repetitions)
    results.write()
    print(
        f"roofs measured here: {roofs.memory / 1e12:.3f} TB/s, "
        f"{roofs.products / 1e12:.1f} TFLOP/s, {roofs.launch * 1e6:.2f} us a kernel"
    )
    if wanted & {"sgmv", "layer"}:
        providers = torch_providers() + peer_providers(options.peers)
    if "layer" in wanted:
        layer.measure(providers, results, repetitions=repetitions)
    if "sgmv" in wanted:
        # The longest list: it leaves a third of the time to attention, if that is wanted too.
        own = (2 * deadline + time.monotonic()) / 3 if "attention" in wanted else deadline
        cases = list(sgmv.all_cases() if on_gpu else sgmv.tiny_cases())
        sgmv.measure(cases, providers, results, roofs, deadline=own, repetitions=repetitions)
    if "attention" in wanted:
        shapes = list(sequences.all_shapes() if on_gpu else sequences.tiny_shapes())
        ways = attention.providers(options.peers)
        attention.measure(shapes, ways, results, roofs, deadline=deadline, repetitions=repetitions)
    results.write()
    print(f"\nwritten to {folder}: {', '.join(sorted(results.rows))}")


if __name__ == "__main__":
    sys.exit(main())

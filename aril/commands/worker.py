"""`aril worker`: serve jobs until told to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aril.arguments import add_settings, settings_of
from aril.commands.groups import worker_groups

if TYPE_CHECKING:
    import argparse

DESCRIPTION: Final = """\
Take jobs from the queue, batch those of any tenants and adapters into one step, stream the answers.

Every flag is a setting: it can also come from the environment or a TOML file, flags being the
strongest. `aril config` takes the same flags and shows what results; `aril check` tries it.
SIGTERM or Ctrl-C lets running jobs finish within --drain-seconds, a second one stops at once."""

EXAMPLES: Final = """\
examples:
  aril worker --model ./SmolLM2-135M-Instruct --adapters ./store
  ARIL_BOOTSTRAP=kafka:9092 ARIL_MODEL=/models/llama aril worker
  aril worker --config /etc/aril.toml --device cuda:1 --http off"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    add_settings(parser, worker_groups())


def run(arguments: argparse.Namespace) -> int:
    """Serve; return the exit code."""
    settings = settings_of(arguments).settings
    from aril.worker.app import run_worker  # noqa: PLC0415 - imports torch, after settings are known good

    return run_worker(settings)

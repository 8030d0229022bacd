"""`aril config`: every setting, its value and where that comes from."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from aril.arguments import OK, add_settings, settings_of
from aril.commands.groups import worker_groups

if TYPE_CHECKING:
    import argparse

DESCRIPTION: Final = """\
Show every setting of a worker, its value, and whether that is a default or comes from a file, the
environment or a flag. Takes the flags of `aril worker`. Secrets are shown as ***."""

EXAMPLES: Final = """\
examples:
  aril config --changed                 only what is not the default
  ARIL_WINDOW_MS=20 aril config --json  for programs"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("--changed", action="store_true", help="leave out what is the default")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    add_settings(parser, worker_groups())


def run(arguments: argparse.Namespace) -> int:
    """Print the settings."""
    rows = {name: (value, origin) for name, value, origin in settings_of(arguments).rows()}
    if arguments.changed:
        rows = {name: row for name, row in rows.items() if row[1] != "default"}
    if arguments.json:
        shown = {name: {"value": value, "from": origin} for name, (value, origin) in rows.items()}
        print(json.dumps(shown, indent=2))
        return OK
    width = max(map(len, rows), default=0)
    value_width = max((len(value) for value, _ in rows.values()), default=0)
    for title, names in worker_groups().items():
        present = [name for name in names if name in rows]
        if present:
            print(f"{title}:")
        for name in present:
            value, origin = rows[name]
            print(f"  {name:<{width}}  {value or '-':<{value_width}}  {origin}")
    return OK

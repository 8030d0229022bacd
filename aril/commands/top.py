"""`aril top`: what the workers of a group are doing now."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from aril.address import DEFAULT, Address
from aril.arguments import FAILED, OK, UsageError

if TYPE_CHECKING:
    import argparse

    from aril.top.view import Group

ENV: Final = "ARIL_TOP_WORKERS"
SECONDS: Final = 2.0
SHORTEST: Final = 0.1
ROWS: Final = 10
UNBOUND: Final = 500  # columns, where a file or a pipe takes the tables

DESCRIPTION: Final = """\
Show what workers are doing, again and again until Ctrl-C: jobs, rows and adapters a step, tokens a
second, jobs that are not read yet, jobs taken over; the busiest tenants and adapters, where workers
tell them. All of it is read from /metrics of the addresses that are named, one a worker (their
ARIL_HTTP). Rates are of the time between two looks."""

EXAMPLES: Final = """\
examples:
  aril top                                        the worker on this machine
  aril top 10.0.0.7:8080 10.0.0.8:8080            two workers of a group
  aril top --once --json | jq .total.tokens       one look, for programs"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.usage = "aril top [options] [ADDRESS ...]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument(
        "addresses",
        nargs="*",
        metavar="ADDRESS",
        help=f"of workers, host:port [env {ENV}, separated by commas; default {DEFAULT}]",
    )
    parser.add_argument(
        "--interval",
        type=float,
        default=SECONDS,
        metavar="SECONDS",
        help=f"between two looks [≥ {SHORTEST:g}; default {SECONDS:g}]",
    )
    parser.add_argument(
        "--once", action="store_true", help="look twice, print once; exit code 1 if nobody answers"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a look and line")
    parser.add_argument(
        "--rows",
        type=int,
        default=ROWS,
        metavar="N",
        help=f"tenants and adapters at most [default {ROWS}]",
    )


def run(arguments: argparse.Namespace) -> int:
    """Look, and show; return the exit code."""
    texts = arguments.addresses or os.environ.get(ENV, "").replace(",", " ").split() or [DEFAULT]
    try:
        addresses = [*dict.fromkeys(map(Address.parse, texts))]
    except ValueError as error:
        raise UsageError(f"top: {error}") from None
    if not arguments.interval >= SHORTEST:
        raise UsageError(f"top: --interval is at least {SHORTEST:g} seconds")
    if arguments.rows < 0:
        raise UsageError("top: --rows is no negative number")
    return asyncio.run(_watch(addresses, arguments))


async def _watch(addresses: list[Address], arguments: argparse.Namespace) -> int:
    from rich.console import Console  # noqa: PLC0415 - with rich and aiohttp 0.3 s
    from rich.live import Live  # noqa: PLC0415 - as above

    from aril.top.screen import as_json, shown  # noqa: PLC0415 - as above
    from aril.top.watching import Watch  # noqa: PLC0415 - as above

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNBOUND

    def show(group: Group) -> None:
        if arguments.json:
            told = {"at": datetime.now(UTC).isoformat(timespec="seconds"), **as_json(group)}
            print(json.dumps(told), flush=True)
        else:
            console.print(shown(group, console, most=arguments.rows))

    async with Watch(addresses) as watch:
        group = await watch.look()
        if arguments.once:
            await asyncio.sleep(arguments.interval)
            show(group := await watch.look())
            return OK if any(not row.problem for row in group.workers) else FAILED
        live = None
        if console.is_terminal and not arguments.json:
            first = shown(group, console, most=arguments.rows)
            live = Live(first, console=console, screen=True, auto_refresh=False)
        with live or contextlib.nullcontext():
            while True:
                await asyncio.sleep(arguments.interval)
                group = await watch.look()
                if live is None:
                    show(group)
                else:
                    live.update(shown(group, console, most=arguments.rows), refresh=True)

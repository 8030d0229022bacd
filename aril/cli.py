"""The command line: finds the command, and imports nothing that it does not need.

Exit codes are the same everywhere: 0 done · 1 a check or a job failed · 2 wrong usage or a bad
setting, told in one line on standard error · 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import difflib
import os
import sys
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.arguments import FAILED, INTERRUPTED, OK, USAGE, Parser, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


class Command(NamedTuple):
    """A command: `configure(parser)` and `run(arguments) -> exit code` of its module."""

    name: str
    module: str
    summary: str


GROUPS: Final[dict[str, tuple[Command, ...]]] = {
    "See it work": (
        Command("demo", "demo", "broker, worker and four tenants at once, on this machine"),
    ),
    "Serve": (
        Command("worker", "worker", "take jobs from the queue and stream the answers"),
        Command("gateway", "gateway", "OpenAI's HTTP endpoints in front of the queue"),
    ),
    "Ask": (
        Command("send", "send", "send prompts as a tenant and print the answers"),
        Command("batch", "batch", "answer a file of prompts, to be started again at any moment"),
    ),
    "Look after it": (
        Command("topics", "topics", "create the topics for tenants"),
        Command("top", "top", "what the workers of a group are doing now"),
        Command("dlq", "dlq", "list, show, replay and purge what could not be answered"),
        Command("keys", "keys", "make a tenant's key, to sign jobs or to ask the gateway"),
        Command("check", "check", "is everything there that a worker needs? or: is one ready?"),
        Command("adapters", "adapters", "list an adapter store, and what is wrong in it"),
        Command("config", "config", "show every setting and where its value comes from"),
    ),
}
COMMANDS: Final[dict[str, Command]] = {
    command.name: command for group in GROUPS.values() for command in group
}

BROUGHT_BY: Final = {
    "aiohttp": "oidc",
    "cryptography": "signing",
    "httptools": "gateway",
    "prometheus_client": "gateway",
    "starlette": "gateway",
    "uvicorn": "gateway",
}
"""Extras of the client, by the modules that they bring."""

EXAMPLES: Final = """\
examples:
  aril demo                                       everything at once, nothing to set up
  aril topics acme blackbeard                     topics for two tenants
  aril worker --model ./model --adapters ./store  serve them
  aril send -t acme -a terse "Where is it?"       ask as one of them

exit codes: 0 done, 1 a check or a job failed, 2 wrong usage or setting, 130 Ctrl-C"""


def overview() -> str:
    """Return what `aril --help` shows."""
    width = max(map(len, COMMANDS))
    groups = "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {text}" for name, _, text in commands)])
        for title, commands in GROUPS.items()
    )
    return f"""\
usage: aril <command> [options]        aril <command> --help tells the rest

Many tenants' LoRA adapters on one backbone, served from a Kafka queue as token streams.

{groups}

{EXAMPLES}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except UsageError as error:
        print(f"aril: {error}", file=sys.stderr)
        return USAGE
    except ModuleNotFoundError as error:
        print(f"aril: {_not_installed(error)}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has gone, as in `aril send … | head`. Python would complain when
        # it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _dispatch(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in {"-h", "--help", "help"}:
        print(overview())
        return OK
    if name in {"-V", "--version"}:
        print(f"aril {_version()}")
        return OK
    command = COMMANDS.get(name)
    if command is None:
        raise UsageError(_unknown(name))
    # A container asks this every few seconds: it must not pay for what a full check imports.
    asks_worker = any(argument.split("=")[0] == "--ready" for argument in arguments)
    home = "ready" if name == "check" and asks_worker else command.module
    module = import_module(f"aril.commands.{home}")
    parser = Parser(prog=f"aril {name}")
    parser.usage = f"aril {name} [options]"
    module.configure(parser)
    code: int = module.run(parser.parse_args(arguments[1:]))
    return code


def _version() -> str:
    try:
        return metadata.version("aril-client")
    except metadata.PackageNotFoundError:
        return "(not installed: run from its source)"


def _not_installed(error: ModuleNotFoundError) -> str:
    """Say what brings a module that a client alone does not; raise for any other."""
    top, *below = (error.name or "").split(".")
    if top == "aril" and below:
        return "this command is the service's: install aril, not aril-client alone"
    extra = BROUGHT_BY.get(top)
    if extra is None:
        raise error
    return f"this needs {top}: install aril-client[{extra}]"


def _unknown(name: str) -> str:
    if not name:
        return f"which command? one of: {', '.join(COMMANDS)} (aril --help)"
    close = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"one of: {', '.join(COMMANDS)}"
    return f"unknown command {name!r}, {hint} (aril --help)"

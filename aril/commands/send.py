"""`aril send`: a tenant's prompts from the command line, answers streamed to the terminal."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from aril.arguments import (
    CONNECTION,
    FAILED,
    OK,
    UsageError,
    add_fields,
    add_settings,
    connection_of,
    quiet_libraries,
)
from aril.client import Client
from aril.commands.forms import add_forms
from aril.commands.prompts import SAMPLING, one_line, read_prompts, sampling_of
from aril.commands.show import printer_for
from aril.connecting.settings import ConnectionSettings
from aril.environment import options_of
from aril.errors import ArilError, BadKey, BadSetting, BadToken
from aril.schemas import Sampling, is_tenant

if TYPE_CHECKING:
    import argparse

    from aril.commands.prompts import Asked
    from aril.commands.show import Printer
    from aril.stream import Stream

DESCRIPTION: Final = """\
Send prompts as a tenant and print the answers as they are generated. A prompt is an argument, or
all of standard input, or a line of a JSONL file. Several are sent at once; their lines are then
marked by number, and by colour on a terminal.

A prompt is asked as a user of a chat; --raw lets the model go on from the bare text instead.
Exit code 1 if a job failed. Ctrl-C cancels the jobs."""

EXAMPLES: Final = """\
examples:
  aril send -t acme "Where is my parcel?"
  aril send -t acme -a terse --max-tokens 40 --temperature 0 "Where is my parcel?" "And my refund?"
  cat letter.txt | aril send -t ledgerly -a extract --json-schema facts.schema.json > facts.json
  aril send -t acme --choice yes --choice no "Is a parcel lost after a month?"
  aril send -t acme --jsonl questions.jsonl --json > answers.jsonl
  token=$(aril send -t acme --detach "A long story, please.") && aril send -t acme --resume "$token"

a line of JSONL: {"prompt": "Hi"}, or with any of
  id, messages, token_ids, adapter, adapters, adapter_scale, sampling, priority, deadline, metadata;
  and with messages
  tools, chat_template_kwargs, add_generation_prompt, continue_final_message
what it says goes before the flags, each field of its sampling by itself"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.usage = "aril send -t TENANT [options] [PROMPT ...]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("prompts", nargs="*", metavar="PROMPT", help="`-` or none: standard input")
    parser.add_argument("-t", "--tenant", metavar="NAME", help="who asks [env ARIL_TENANT]")
    parser.add_argument("--key", metavar="FILE", help="private key to sign with [env ARIL_KEY]")
    parser.add_argument(
        "-a",
        "--adapter",
        action="append",
        metavar="NAME",
        help="name or name@digest; several, with =WEIGHT where it is not 1, are added up",
    )
    parser.add_argument(
        "--adapter-scale", type=float, metavar="X", help="how strong adapters are, 0 to 4"
    )
    parser.add_argument("-s", "--system", metavar="TEXT", help="system message of the chat")
    parser.add_argument("--raw", action="store_true", help="no chat: go on from the bare text")
    parser.add_argument("--jsonl", metavar="FILE", help="a job a line; `-` is standard input")
    parser.add_argument("--json", action="store_true", help="print events as JSON lines")
    parser.add_argument("--timeout", type=float, metavar="SECONDS", help="give up on a job after")
    parser.add_argument("--concurrency", type=int, default=256, metavar="N", help="default 256")
    parser.add_argument("--detach", action="store_true", help="print resume tokens and leave")
    parser.add_argument("--resume", action="append", metavar="TOKEN", help="go on with a stream")
    fields = {name: Sampling.model_fields[name] for name in SAMPLING}
    add_fields(parser, "sampling", fields, SAMPLING)
    add_forms(parser)
    add_settings(parser, {"queue": CONNECTION}, ConnectionSettings)


def run(arguments: argparse.Namespace) -> int:
    """Send and print; return the exit code."""
    settings = connection_of(arguments)
    tenant = arguments.tenant or os.environ.get("ARIL_TENANT")
    if not tenant:
        raise UsageError("send: who asks? -t TENANT, or ARIL_TENANT")
    if not is_tenant(tenant):
        raise UsageError(f"send: {tenant!r} is not a tenant's name (lower case, digits, -)")
    sampling = sampling_of(arguments, "send")
    asked = [] if arguments.resume else read_prompts(arguments, sampling)
    quiet_libraries()
    try:
        key = arguments.key or os.environ.get("ARIL_KEY")
        client = Client(**options_of(settings, tenant, key))
        return asyncio.run(_send(client, asked, arguments))
    except (BadKey, BadSetting, BadToken) as error:
        raise UsageError(f"send: {error}") from None
    except ArilError as error:
        print(f"aril: send: {error}", file=sys.stderr)
        return FAILED


async def _send(client: Client, asked: list[Asked], arguments: argparse.Namespace) -> int:
    streams = _streams(client, asked, arguments)
    async with client:
        if arguments.detach:
            for stream in streams:
                print((await stream.start()).detach(), flush=True)
            return OK
        printer = printer_for(streams, as_json=arguments.json)
        room = asyncio.Semaphore(arguments.concurrency)
        done = await asyncio.gather(*(_print(stream, printer, room) for stream in streams))
    return OK if all(done) else FAILED


def _streams(client: Client, asked: list[Asked], arguments: argparse.Namespace) -> list[Stream]:
    """Make every stream before the first job is sent, so that a mistake costs nothing."""
    if arguments.resume:
        return [client.resume(token, timeout=arguments.timeout) for token in arguments.resume]
    streams = []
    for number, options in enumerate(asked, start=1):
        try:
            streams.append(client.stream(**options))
        except ValidationError as error:
            raise UsageError(f"send: job {number}: {one_line(error)}") from None
    return streams


async def _print(stream: Stream, printer: Printer, room: asyncio.Semaphore) -> bool:
    async with room:
        try:
            async for event in stream:
                printer.event(stream, event)
        except ArilError as error:
            printer.failed(stream, error)
            return False
        return True

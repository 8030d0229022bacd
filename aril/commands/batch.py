"""`aril batch`: a file of prompts answered into a file, to be started again at any moment."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

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
from aril.commands.forms import add_forms
from aril.commands.prompts import SAMPLING, adapters_of, sampling_of
from aril.connecting.settings import ConnectionSettings
from aril.environment import options_of
from aril.errors import ArilError, BadKey, BadSetting
from aril.job_lines import BATCH_PRIORITY
from aril.schemas import Sampling, is_tenant, limits

if TYPE_CHECKING:
    from aril.batches.lines import Manner

DEFAULT_CONCURRENCY: Final = 256
MAX_CONCURRENCY: Final = 100_000

DESCRIPTION: Final = """\
Answer a file of prompts through the queue. Killed, stopped or crashed, the same command goes on
where it was: what the output holds is not asked again, and what was asked and not written yet is
found at the service, under the same ids.

A line of IN is of OpenAI's batch format, or as `aril send --jsonl` has it; its answer is a line of
OUT, in the same form, as soon as it is there. A line that cannot be answered becomes an error, and
the exit code is 1. Ctrl-C stops asking and leaves what runs to the service; twice cancels it."""

EXAMPLES: Final = """\
examples:
  aril batch run in.jsonl -o out.jsonl -t acme
  aril batch run in.jsonl -o out.jsonl -t acme -a terse --model gpt-4.1 --temperature 0
  aril batch run in.jsonl -o out.jsonl -t acme --retry-failed
  aril batch check in.jsonl

lines of OpenAI's:
  {"custom_id": "q-1", "method": "POST", "url": "/v1/chat/completions",
   "body": {"model": "terse", "messages": [{"role": "user", "content": "Hi"}]}}
and ours: {"id": "q-1", "prompt": "Hi", "adapter": "terse"} (aril send --help)"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's actions and their flags."""
    parser.usage = "aril batch {run,check} IN [options]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(
        dest="action", required=True, metavar="ACTION", prog="aril batch"
    )
    run = actions.add_parser("run", help="ask what is not answered yet")
    run.usage = "aril batch run IN -o OUT -t TENANT [options]"
    check = actions.add_parser("check", help="only judge the lines; exit code 1 if one is bad")
    check.usage = "aril batch check IN [options]"
    for action in (run, check):
        action.add_argument("input", type=Path, metavar="IN", help="a job a line")
        _add_asking(action)
    _add_running(run)
    add_settings(run, {"queue": CONNECTION}, ConnectionSettings)


def _add_asking(parser: argparse.ArgumentParser) -> None:
    """Add what lines mean that do not say it themselves."""
    parser.add_argument(
        "-a",
        "--adapter",
        action="append",
        metavar="NAME",
        help="for lines that name none; several, with =WEIGHT where it is not 1, are added up",
    )
    parser.add_argument("--adapter-scale", type=float, metavar="X", help="how strong, 0 to 4")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME",
        help="what OpenAI's lines call the backbone, beside aril; may be repeated",
    )
    parser.add_argument("-s", "--system", metavar="TEXT", help="system message of prompts")
    parser.add_argument("--raw", action="store_true", help="prompts are no chat: go on from them")
    parser.add_argument(
        "--priority", type=int, default=BATCH_PRIORITY, metavar="N",
        help=f"among the tenant's waiting jobs [default {BATCH_PRIORITY}: behind all others]",
    )  # fmt: skip
    fields = {name: Sampling.model_fields[name] for name in SAMPLING}
    add_fields(parser, "sampling, where a line does not say it", fields, SAMPLING)
    add_forms(parser)


def _add_running(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    parser.add_argument("-t", "--tenant", metavar="NAME", help="who asks [env ARIL_TENANT]")
    parser.add_argument("--key", metavar="FILE", help="private key to sign with [env ARIL_KEY]")
    parser.add_argument(
        "--concurrency", type=_places, default=DEFAULT_CONCURRENCY, metavar="N",
        help=f"jobs at once [default {DEFAULT_CONCURRENCY}]",
    )  # fmt: skip
    parser.add_argument(
        "--timeout", type=_seconds, metavar="SECONDS", help="ask a job again after so long"
    )
    parser.add_argument(
        "--retry-failed", action="store_true", help="ask again what is an error in OUT"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="what ids of jobs begin with [default: drawn, kept by OUT]"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="say nothing but mistakes")


def run(arguments: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    try:
        if arguments.action == "check":
            return _check(arguments)
        return _run(arguments)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise UsageError(f"batch: {error.filename or ''}: {error.strerror}") from None


def _check(arguments: argparse.Namespace) -> int:
    from aril.batches.survey import survey  # noqa: PLC0415 - after the arguments are good
    from aril.commands.batch_run import tell_bad  # noqa: PLC0415 - as above

    with arguments.input.open("rb") as file:
        found = survey(file, _manner(arguments, ""), requests=True)
    tell_bad(found)
    print(f"{found.total:,} lines, {found.wrong:,} bad")
    return FAILED if found.wrong else OK


def _run(arguments: argparse.Namespace) -> int:
    settings = connection_of(arguments)
    tenant = arguments.tenant or os.environ.get("ARIL_TENANT")
    if not tenant:
        raise UsageError("batch: who asks? -t TENANT, or ARIL_TENANT")
    if not is_tenant(tenant):
        raise UsageError(f"batch: {tenant!r} is not a tenant's name (lower case, digits, -)")
    manner = _manner(arguments, tenant)
    quiet_libraries()
    try:
        options = options_of(settings, tenant, arguments.key or os.environ.get("ARIL_KEY"))
    except (BadKey, BadSetting) as error:
        raise UsageError(f"batch: {error}") from None
    from aril.batches.lines import BadLine  # noqa: PLC0415 - after the arguments are good
    from aril.batches.output import BadOutput  # noqa: PLC0415 - as above
    from aril.commands.batch_run import answer_file  # noqa: PLC0415 - as above

    try:
        return answer_file(arguments, manner, options)
    except BadOutput as error:
        raise UsageError(f"batch: {error}") from None
    except (ArilError, BadLine) as error:
        print(f"aril: batch: {error}", file=sys.stderr)
        return FAILED


def _manner(arguments: argparse.Namespace, tenant: str) -> Manner:
    from aril.batches.lines import Manner  # noqa: PLC0415 - as above

    sampling = sampling_of(arguments, "batch").model_dump(exclude_unset=True)
    defaults: dict[str, Any] = {
        "sampling": sampling,
        **adapters_of(arguments.adapter or [], "batch"),
    }
    if arguments.adapter_scale is not None:
        defaults["adapter_scale"] = arguments.adapter_scale
    if not abs(arguments.priority) <= limits.MAX_ABSOLUTE_PRIORITY:
        raise UsageError(f"batch: --priority: within ±{limits.MAX_ABSOLUTE_PRIORITY}")
    if arguments.priority:
        defaults["priority"] = arguments.priority
    return Manner(
        defaults,
        bases=frozenset(arguments.model),
        raw=arguments.raw,
        system=arguments.system,
        tenant=tenant,
    )


def _places(text: str) -> int:
    count = int(text)
    if not 1 <= count <= MAX_CONCURRENCY:
        raise argparse.ArgumentTypeError(f"1 to {MAX_CONCURRENCY}")
    return count


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("a number above 0")
    return seconds

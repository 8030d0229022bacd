"""`aril dlq`: what could not be answered, looked at, replayed, deleted."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import TYPE_CHECKING, Final

from aril.arguments import (
    CONNECTION,
    FAILED,
    UsageError,
    add_settings,
    quiet_libraries,
    security_of,
    settings_of,
)
from aril.errors import ArilError

if TYPE_CHECKING:
    from aril.dead_letters.selection import Selection

LISTED: Final = 50
AT_ONCE: Final = 1_000  # letters that one replay looks up and appends
MS: Final = 1_000

DESCRIPTION: Final = """\
Records that could not be answered lie in the dead-letter topic, as they came. `ls` lists them,
`show` tells all that is known of some, `replay` puts their records back where they came from,
`purge` deletes the oldest. Each has its own --help.

PLACE is where a record stood, topic/partition/offset, as `ls` shows it; ID is a job's id.
TIME is 90m, 12h or 7d ago, or ISO 8601 (UTC, if it says no zone): when it was put aside."""

EXAMPLES: Final = """\
examples:
  aril dlq ls --since 24h --reason missing_reply_topic
  aril dlq show jobs/5/17
  aril dlq replay --reason missing_reply_topic --dry-run
  aril dlq purge --until 7d"""

REPLAY: Final = """\
Append letters' records again, each to the topic and partition that it came from, with its own key,
headers and value: the job keeps its id, and its reader gets the answer. Its deadline counts anew.
Refused is, with the reason, what was answered or begun already, what is not whole, and what workers
would only put aside again; the last goes with --force. Signed jobs go as long as their signature is
in time; after that their tenant has to sign and send them again."""

PURGE: Final = """\
Delete the oldest letters, up to a time or an offset, or all there are. Kafka deletes a log from
its start: letters of one tenant or reason cannot be deleted from among others."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's actions and their flags."""
    parser.usage = "aril dlq {ls,show,replay,purge} [options]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION", prog="aril dlq")
    ls = actions.add_parser("ls", help="list letters, the newest first")
    ls.add_argument("--oldest", action="store_true", help="the oldest first")
    _add_limit(ls, LISTED)
    ls.add_argument("--json", action="store_true", help="one JSON array")
    shown = actions.add_parser("show", help="tell all that is known of letters")
    _add_names(shown)
    shown.add_argument("--body", action="store_true", help="the record's value, too: the prompt")
    shown.add_argument("--json", action="store_true", help="one JSON array; the body as base64")
    replay = actions.add_parser("replay", help="put records back where they came from")
    replay.description = REPLAY
    _add_names(replay)
    replay.add_argument("--all", action="store_true", help="every letter there is")
    _add_limit(replay, AT_ONCE)
    replay.add_argument("--dry-run", action="store_true", help="only say what would be done")
    replay.add_argument("--force", action="store_true", help="what would come back here, too")
    replay.add_argument("--again", action="store_true", help="what was replayed before, too")
    replay.add_argument("--jsonl", action="store_true", help="one JSON object a letter and line")
    purge = actions.add_parser("purge", help="delete the oldest letters")
    purge.description = PURGE
    purge.add_argument("--all", action="store_true", help="every letter there is")
    purge.add_argument(
        "--upto", action="append", default=[], metavar="PARTITION/OFFSET",
        help="what stands below that in the dead-letter topic; may be repeated",
    )  # fmt: skip
    purge.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    for action in (replay, purge):
        action.add_argument("--yes", action="store_true", help="do not ask")
    for action in (ls, shown, replay, purge):
        names = " [PLACE|ID ...]" if action in {shown, replay} else ""
        action.usage = f"{action.prog} [options]{names}"
        _add_filters(action, hidden=action is purge)
        queue = [*CONNECTION[:3], "dlq_topic", *CONNECTION[3:]]
        judging = ["tenant_from", "tenant_keys", "signature_age", "clock_slack"]
        add_settings(action, {"queue": queue, "how jobs are judged": judging})


def _add_names(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="PLACE|ID", help="letters, by either")


def _add_limit(parser: argparse.ArgumentParser, default: int) -> None:
    text = f"so many letters at most [default {default}]"
    parser.add_argument("--limit", type=_positive, default=default, metavar="N", help=text)


def _add_filters(parser: argparse.ArgumentParser, *, hidden: bool) -> None:
    """Add them, but for `--until` without a word where they are only there to be refused."""
    group = parser.add_argument_group("which letters")
    for flag, metavar, text in (
        ("--reason", "REASON", "of this reason"),
        ("--tenant", "TENANT", "whose record names this tenant"),
        ("--id", "ID", "whose record names this job"),
    ):
        help_text = argparse.SUPPRESS if hidden else f"{text}; may be repeated"
        group.add_argument(flag, action="append", default=[], metavar=metavar, help=help_text)
    since = argparse.SUPPRESS if hidden else "put aside then or later"
    group.add_argument("--since", metavar="TIME", help=since)
    group.add_argument("--until", metavar="TIME", help="put aside before that")


def run(arguments: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    settings = settings_of(arguments).settings
    selection = _selection(arguments)
    _check(arguments, selection)
    from aril.commands.dlq_actions import ACTIONS  # noqa: PLC0415 - aiokafka takes 0.1 s

    quiet_libraries()
    security_of(settings)  # what is named and missing is told before anything is asked
    try:
        return asyncio.run(ACTIONS[arguments.action](settings, arguments, selection))
    except ArilError as error:
        print(f"aril: dlq: {error}", file=sys.stderr)
        return FAILED


def _selection(arguments: argparse.Namespace) -> Selection:
    from aril.dead_letters.selection import (  # noqa: PLC0415 - pydantic, once it is needed
        Selection,
        moment_ms,
        named,
    )

    now_ms = time.time() * MS
    times: dict[str, int | None] = {}
    for name in ("since", "until"):
        text = getattr(arguments, name)
        try:
            times[f"{name}_ms"] = None if text is None else moment_ms(text, now_ms)
        except (ValueError, OverflowError):
            problem = f"--{name} {text}: a time is 90m, 12h, 7d, or ISO 8601"
            raise UsageError(f"dlq {arguments.action}: {problem}") from None
    try:
        places, ids = named(getattr(arguments, "names", ()))
    except ValueError:
        problem = "a place is topic/partition/offset, and no id of a job has a slash"
        raise UsageError(f"dlq {arguments.action}: {problem}") from None
    return Selection(
        reasons=frozenset(arguments.reason),
        tenants=frozenset(arguments.tenant),
        ids=ids.union(arguments.id),
        places=places,
        **times,
    )


def _check(arguments: argparse.Namespace, selection: Selection) -> None:
    """Raise `UsageError` for what can be told without a broker."""
    action = arguments.action
    if action == "show" and selection.everything:
        raise UsageError("dlq show: which letters? PLACE or ID, or filters")
    if action == "replay" and selection.everything is not arguments.all:
        raise UsageError("dlq replay: which letters? PLACE or ID, filters, or --all alone")
    if action == "purge":
        if arguments.reason or arguments.tenant or arguments.id or arguments.since:
            raise UsageError(
                "dlq purge: --reason, --tenant, --id and --since cannot be honoured:"
                " Kafka deletes a log from its start, whatever stands there"
            )
        if [bool(arguments.until), bool(arguments.upto), arguments.all].count(True) != 1:
            raise UsageError("dlq purge: up to where? one of --until, --upto or --all")
        arguments.upto = _upto(arguments.upto)
    asks = action in {"replay", "purge"} and not (arguments.yes or arguments.dry_run)
    if asks and not sys.stdin.isatty():
        raise UsageError(f"dlq {action}: nobody can be asked here: --yes, or --dry-run to look")


def _upto(texts: list[str]) -> dict[int, int]:
    try:
        return {int(a): int(b) for a, b in (text.split("/") for text in texts)}
    except ValueError:
        raise UsageError("dlq purge: --upto is a partition and an offset, as 0/1234") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive number"  # what argparse calls it when it refuses a value

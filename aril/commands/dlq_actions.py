"""What `aril dlq` does, action by action. Each takes settings, arguments, and which letters."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from aril.arguments import FAILED, OK, UsageError
from aril.commands import dlq_show as show
from aril.dead_letters import purging
from aril.dead_letters.answers import AnswerBook
from aril.dead_letters.logs import Logs
from aril.dead_letters.replaying import Replayer, plan
from aril.dead_letters.rulings import Rules
from aril.dead_letters.selection import Letters
from aril.worker.topics.contract import Contract

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from aril.dead_letters.replaying import Planned
    from aril.dead_letters.selection import Selection
    from aril.worker.settings import WorkerSettings

SHOWN: Final = 100  # letters whose bodies are in memory at a time
MS: Final = 1_000


async def ls(settings: WorkerSettings, arguments: argparse.Namespace, selection: Selection) -> int:
    """List letters."""
    letters = _letters(settings, selection, most=arguments.limit, newest=not arguments.oldest)
    async with Logs(settings) as logs:
        await _read(logs, settings, letters, selection)
    show.print_list(letters, as_json=arguments.json)
    return OK


async def tell(
    settings: WorkerSettings, arguments: argparse.Namespace, selection: Selection
) -> int:
    """Tell all that is known of letters."""
    letters = _letters(settings, selection, most=SHOWN, bodies=True)
    async with Logs(settings) as logs:
        await _read(logs, settings, letters, selection)
    show.print_details(letters, body=arguments.body, as_json=arguments.json)
    return OK if letters.found else FAILED


async def replay(
    settings: WorkerSettings, arguments: argparse.Namespace, selection: Selection
) -> int:
    """Append letters' records again, where that is right."""
    letters = _letters(settings, selection, most=arguments.limit, newest=False)
    printer = show.ReplayPrinter(as_json=arguments.jsonl)
    async with Logs(settings) as logs:
        await _read(logs, settings, letters, selection)
        planned = await _planned(logs, settings, arguments, letters)
        show.print_left_out(letters)
        for each in planned:
            if each.refused is not None:
                printer.refused(each)
        going = [each.letter for each in planned if each.refused is None]
        if arguments.dry_run:
            for letter in going:
                printer.would(letter)
            return OK if len(going) == len(planned) > 0 else FAILED
        if not going:
            printer.nothing(bool(planned))
            return FAILED
        if not confirmed(arguments, f"replay {show.counted(len(going), 'letter')}"):
            return FAILED
        failed = len(planned) - len(going)
        async with Replayer(settings, logs) as replayer:
            for letter in going:
                done = await replayer.replay(letter)
                printer.done(letter, done)
                failed += bool(done.problem)
    return FAILED if failed else OK


async def purge(
    settings: WorkerSettings, arguments: argparse.Namespace, selection: Selection
) -> int:
    """Delete the oldest letters, once it was told which."""
    topic = settings.dlq_topic
    async with Logs(settings) as logs:
        if selection.until_ms is not None:
            before = await purging.until(logs, topic, selection.until_ms)
        else:
            ends = await logs.ends(topic)
            wanted: Mapping[int, int] = ends if arguments.all else arguments.upto
            try:
                before = purging.within(wanted, await logs.starts(topic), ends)
            except ValueError as error:
                raise UsageError(f"dlq purge: {error} of {topic}") from None
        doomed = await purging.count(logs, topic, before)
        show.print_doomed(topic, doomed)
        if arguments.dry_run or not doomed.records:
            return OK
        if not confirmed(arguments, f"delete {show.counted(doomed.letters, 'letter')} for good"):
            return FAILED
        await logs.delete(topic, before)
    print("deleted")
    return OK


def _letters(
    settings: WorkerSettings,
    selection: Selection,
    *,
    most: int,
    newest: bool = True,
    bodies: bool = False,
) -> Letters:
    return Letters(
        selection, jobs_topic=settings.jobs_topic, most=most, newest=newest, bodies=bodies
    )


async def _read(
    logs: Logs, settings: WorkerSettings, letters: Letters, selection: Selection
) -> None:
    """Let `letters` see the whole topic, but for what is older than what is asked for."""
    topic = settings.dlq_topic
    starts, ends = await logs.starts(topic), await logs.ends(topic)
    for partition, end in ends.items():
        start = starts[partition]
        if selection.since_ms is not None:
            start = await logs.at(topic, partition, selection.since_ms, otherwise=end)
        async for raw in logs.read(topic, partition, start, end):
            letters.add(raw)


async def _planned(
    logs: Logs, settings: WorkerSettings, arguments: argparse.Namespace, letters: Letters
) -> list[Planned]:
    chosen = letters.chosen()
    book = AnswerBook(
        logs, replies_prefix=settings.replies_prefix, slack_ms=settings.clock_slack * MS
    )
    told = await book.look_up(each.letter for each in chosen)
    rules = Rules(
        is_jobs=Contract.of(settings).is_jobs,
        partitions=logs.partitions,
        signed=settings.tenant_from == "signature",
        signature_age_ms=settings.signature_age * MS,
        now_ms=time.time() * MS,
        force=arguments.force,
        again=arguments.again,
    )
    return plan(chosen, told, rules)


def confirmed(arguments: argparse.Namespace, what: str) -> bool:
    """Ask whoever sits there, unless they have said yes already."""
    if arguments.yes:
        return True
    try:
        return input(f"{what}? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False


ACTIONS: Final = {"ls": ls, "show": tell, "replay": replay, "purge": purge}

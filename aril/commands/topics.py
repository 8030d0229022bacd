"""`aril topics`: create the topics of the contract."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aril.arguments import (
    CONNECTION,
    FAILED,
    OK,
    UsageError,
    add_settings,
    quiet_libraries,
    security_of,
    settings_of,
)
from aril.commands.report import Report
from aril.schemas import is_tenant

if TYPE_CHECKING:
    import argparse

    from aril.worker.settings import WorkerSettings
    from aril.worker.topics.admin import TopicPlan

HOUR_MS: Final = 3_600_000

DESCRIPTION: Final = """\
Create the topics that workers and tenants need, where they are missing: jobs, the dead-letter topic
and, for each TENANT named, its reply topic. Then compare all of them with the contract.

A topic that exists is never changed. The number of partitions of a reply topic can never be: a
job's answer is found by it. One is enough for a tenant whose answers one broker can take; who reads
one answer reads past all others of its partition, so a tenant with very many at once wants more.
Workers share the partitions of jobs, so have as
many as you may ever run workers. Replies are kept for the time of jobs and their segment,
--max-job-age and a day."""

EXAMPLES: Final = """\
examples:
  aril topics acme blackbeard
  aril topics --bootstrap kafka:9092 --partitions 32 --reply-partitions 4 acme
  aril topics --jobs-retention-hours 24 acme"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's flags."""
    parser.usage = "aril topics [options] [TENANT ...]"
    parser.description = DESCRIPTION
    parser.epilog = EXAMPLES
    parser.add_argument("tenants", nargs="*", metavar="TENANT", help="gets a reply topic")
    parser.add_argument(
        "--partitions", type=_positive, metavar="N", help="of each topic of jobs [default 8]"
    )
    parser.add_argument(
        "--reply-partitions", type=_positive, metavar="N", help="of each reply topic [default 1]"
    )
    parser.add_argument(
        "--dlq-partitions", type=_positive, metavar="N", help="of the dead letters [default 3]"
    )
    parser.add_argument(
        "--replicas",
        type=_positive,
        metavar="N",
        help="of each partition [default 3, or as many as there are brokers]",
    )
    parser.add_argument(
        "--jobs-retention-hours",
        type=_positive,
        metavar="N",
        help="how long an unserved job is kept [default 72]",
    )
    add_settings(
        parser, {"queue": [*CONNECTION[:3], "dlq_topic", *CONNECTION[3:]], "time": ["max_job_age"]}
    )


def run(arguments: argparse.Namespace) -> int:
    """Create and compare; return the exit code."""
    from aril.worker.topics.admin import TopicPlan, TopicsError  # noqa: PLC0415 - aiokafka takes 0.1 s

    settings = settings_of(arguments).settings
    if wrong := [tenant for tenant in arguments.tenants if not is_tenant(tenant)]:
        raise UsageError(f"topics: {wrong[0]!r} is not a tenant's name (lower case, digits, -)")
    if not arguments.tenants and settings.jobs_topic.endswith("*"):
        raise UsageError("topics: with a topic of jobs for each tenant, name the tenants")
    hours = arguments.jobs_retention_hours
    plan = TopicPlan(
        jobs_partitions=arguments.partitions,
        reply_partitions=arguments.reply_partitions,
        dlq_partitions=arguments.dlq_partitions,
        replicas=arguments.replicas,
        **({"jobs_retention_ms": hours * HOUR_MS} if hours else {}),
    )
    quiet_libraries()
    report = Report()
    try:
        asyncio.run(_create(settings, arguments.tenants, plan, report))
    except TopicsError as error:
        report.line("bad", "topics", str(error))
    return FAILED if report.failed else OK


async def _create(
    settings: WorkerSettings, tenants: list[str], plan: TopicPlan, report: Report
) -> None:
    from aril.worker.topics.admin import Contract, TopicAdmin  # noqa: PLC0415 - as above

    async with TopicAdmin(
        settings.bootstrap, Contract.of(settings), security=security_of(settings)
    ) as admin:
        created = set(await admin.ensure(tenants, plan))
        for topic in sorted(await admin.states(), key=lambda state: state.name):
            what = "created" if topic.name in created else "there"
            parts = "partition" if topic.partitions == 1 else "partitions"
            report.line("good", what, f"{topic.name}, {topic.partitions} {parts}")
        for finding in await admin.verify():
            report.line(
                "bad" if finding.level == "error" else "warning", finding.level, str(finding)
            )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive number"  # what argparse calls it when it refuses a value

"""The consolidating assignor as aiokafka wants it: a thin way from requests to the plan.

aiokafka takes a class and calls its class methods, so each consumer gets a class of its own, which
knows the member that it speaks for. Exactly one assignor is in a group: the broker refuses a member
that names another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)

from aril.worker.job import Partition
from aril.worker.observe.logs import get_logger
from aril.worker.placement.load_report import Notice, decode_notice, decode_report, encode_notice
from aril.worker.placement.plan import Member, place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aiokafka import AIOKafkaConsumer

    from aril.worker.placement.load_report import Report
    from aril.worker.placement.plan import Plan

log = get_logger(__name__)

NAME: Final = "aril-consolidate"
PROTOCOL_VERSION: Final = 0


def make_assignor(
    report: Callable[[], bytes],
    told: Callable[[Sequence[Partition], Notice | None], None],
) -> type[AbstractPartitionAssignor]:
    """Make the assignor class of one consumer.

    `report` returns what goes to the leader; `told` learns what we got, and the leader's notice.
    """

    class ConsolidatingAssignor(AbstractPartitionAssignor):  # type: ignore[misc] # aiokafka is untyped
        """Reports of one member, assignments of all when it leads."""

        name = NAME

        @classmethod
        def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
            """Return what goes into the request to join."""
            return ConsumerProtocolMemberMetadata(PROTOCOL_VERSION, sorted(topics), report())

        @classmethod
        def assign(
            cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
        ) -> dict[str, ConsumerProtocolMemberAssignment]:
            """Return what each member gets: we lead."""
            return assign(cluster, members)

        @classmethod
        def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
            """Take note of what we got."""
            partitions = [Partition(*each) for each in assignment.partitions()]
            notice = decode_notice(assignment.user_data or b"")
            told(partitions, notice)

    return ConsolidatingAssignor


def assign(
    cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
) -> dict[str, ConsumerProtocolMemberAssignment]:
    """Place the partitions of all topics that somebody subscribed to."""
    reports = {name: decode_report(each.user_data or b"") for name, each in members.items()}
    topics = {topic for each in members.values() for topic in each.subscription}
    plan = place(
        [_member(name, each.subscription, reports[name]) for name, each in members.items()],
        [
            Partition(topic, number)
            for topic in topics
            for number in cluster.partitions_for_topic(topic) or ()
        ],
    )
    asked = any(each is not None and each.asked for each in reports.values())
    unreadable = sum(each is None for each in reports.values())
    log.info(
        "partitions_placed",
        open=len(plan.open),
        standby=plan.standby,
        moved=plan.moved,
        asked=asked,
        unreadable_reports=unreadable,
    )
    return {name: _assignment(plan, name, asked=asked) for name in members}


def notice_for(plan: Plan, name: str, *, asked: bool) -> Notice:
    """Return what one member is told of a plan."""
    opened = plan.open
    return Notice(
        open=len(opened),
        standby=plan.standby,
        load=sum(map(plan.load, opened)),
        rows=sum(plan.rows[each] for each in opened),
        asked=asked,
        closes=opened[:1] == [name],
        loads=tuple(plan.loads[each] for each in plan.partitions[name]),
    )


def ask_for_rebalance(consumer: AIOKafkaConsumer) -> None:
    """Let a member join its group anew, with a new report; the broker rebalances for that."""
    consumer._coordinator.request_rejoin()  # noqa: SLF001 - nothing public does; test_assignor.py pins it


def _member(name: str, topics: Iterable[str], report: Report | None) -> Member:
    if report is None:
        return Member(name, frozenset(topics))
    return Member(
        name,
        frozenset(topics),
        rows=report.rows,
        generation=report.generation,
        held=report.held,
        adapters=frozenset(report.adapters),
        draining=report.draining,
    )


def _assignment(plan: Plan, name: str, *, asked: bool) -> ConsumerProtocolMemberAssignment:
    numbers: dict[str, list[int]] = {}
    for each in plan.partitions[name]:  # sorted, so that the notice's loads are in this order
        numbers.setdefault(each.topic, []).append(each.partition)
    return ConsumerProtocolMemberAssignment(
        PROTOCOL_VERSION,
        list(numbers.items()),
        encode_notice(notice_for(plan, name, asked=asked)),
    )

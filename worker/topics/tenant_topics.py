"""Topics of one tenant that break the contract: that tenant's jobs are refused, nobody else's.

Reply topics, and where each tenant has a jobs topic of its own, those. What is wrong was found at
the start, or later among the topics in use, a few at a time: a cluster may have tens of thousands.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aril.worker.observe.logs import get_logger
from aril.worker.topics.admin import TopicsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from aril.worker.observe.metrics import Metrics
    from aril.worker.topics.admin import TopicAdmin
    from aril.worker.topics.contract import Contract, Finding

log = get_logger(__name__)

LOOK_SECONDS: Final = 30.0
LOOK_TOPICS: Final = 50  # looked at a time: some ten milliseconds of the event loop
LOGGED: Final = 10  # findings that one look tells of


class TenantTopics:
    """What is known to be wrong, by topic. Lives on the event loop."""

    def __init__(self, contract: Contract, metrics: Metrics) -> None:
        self._contract = contract
        self._metrics = metrics
        self._wrong: dict[str, str] = {}
        self._seen = 0  # of the topics in use, those that were looked at once: newer ones go first
        self._next = 0  # and the first that is to be looked at again

    def why_refused(self, topic: str) -> str | None:
        """Return what is wrong with a topic, in one line; None where nothing is known."""
        return self._wrong.get(topic)

    def learn(self, findings: Iterable[Finding], looked_at: Iterable[str] | None = None) -> None:
        """Take in the findings of some topics, or of all; of those nothing else is wrong."""
        found = {
            each.topic: each.text
            for each in findings
            if each.level == "error" and self._contract.is_of_one_tenant(each.topic)
        }
        kept = {} if looked_at is None else dict(self._wrong)
        for topic in looked_at or ():
            kept.pop(topic, None)
        new = [topic for topic in found if topic not in self._wrong]
        for topic in new[:LOGGED]:
            log.error("topic_refused", topic=topic, finding=found[topic])
        if len(new) > LOGGED:
            log.error("topics_refused", more=len(new) - LOGGED)
        self._wrong = kept | found
        replies = sum(map(self._contract.is_replies, self._wrong))
        self._metrics.topics_refused.labels(kind="replies").set(replies)
        self._metrics.topics_refused.labels(kind="jobs").set(len(self._wrong) - replies)

    async def watch(
        self, admin: Callable[[], TopicAdmin], in_use: Callable[[], Sequence[str]]
    ) -> None:
        """Look again at what is in use and at what was wrong, until cancelled.

        `in_use` are reply topics, in an order that only grows; with each its jobs topic is seen to.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            names = self._turn(in_use())
            if not names:
                continue
            try:
                async with admin() as asked:
                    findings, told = await asked.judge_some(names)
            except TopicsError as error:
                log.warning("topics_unknown", error=str(error))
                continue
            self.learn(findings, told)

    def _turn(self, in_use: Sequence[str]) -> list[str]:
        """Return the topics whose turn it is, up to half of them such as were wrong before."""
        wrong = [*self._wrong][: LOOK_TOPICS // 2]
        for topic in wrong:  # the next look has others, should there be more
            self._wrong[topic] = self._wrong.pop(topic)
        room = LOOK_TOPICS - len(wrong)
        new = in_use[self._seen : self._seen + room]
        self._seen += len(new)
        begin = self._next if self._next < len(in_use) else 0
        again = in_use[begin : begin + room - len(new)]
        self._next = begin + len(again)
        return [*dict.fromkeys([*wrong, *new, *again])]

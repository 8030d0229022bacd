"""Topics of one tenant that break the contract: that tenant's jobs are refused, nobody else's.

Reply topics, and where each tenant has a jobs topic of its own, those. A reply topic is looked at
when it is first used, and again among those in use, a few at a time: a cluster may have tens of
thousands. Jobs topics of tenants were looked at as the worker started.
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
LOOK_TOPICS: Final = 50  # looked at a time: some milliseconds of the event loop
FIRST_SECONDS: Final = 5.0  # that a first look may take: after that the topic counts as right
LOGGED: Final = 10  # findings that one look tells of


class TenantTopics:
    """What is known to be wrong, by topic. Lives on the event loop."""

    def __init__(
        self, contract: Contract, metrics: Metrics, admin: Callable[[], TopicAdmin] | None = None
    ) -> None:
        """Prepare; without `admin` nothing is looked at."""
        self._contract = contract
        self._admin = admin
        self._first: dict[str, asyncio.Future[None]] = {}  # waits to be looked at
        self._looking: asyncio.Task[None] | None = None
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

    async def first_use(self, topic: str) -> str | None:
        """Return what is wrong with a topic that was not used before; None where nothing is known.

        Those that are asked for in the same moment share a look.
        """
        waiting = self._first.get(topic)
        if waiting is None:
            waiting = self._first[topic] = asyncio.get_running_loop().create_future()
            if self._looking is None:
                self._looking = asyncio.create_task(self._look_at_new(), name="aril-new-topics")
        await asyncio.shield(waiting)
        return self.why_refused(topic)

    async def watch(self, in_use: Callable[[], Sequence[str]]) -> None:
        """Look again at what is in use and at what was wrong, until cancelled.

        `in_use` are reply topics, the newest last; with each its jobs topic is seen to.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if names := self._turn(in_use()):
                await self._look(names)

    async def _look_at_new(self) -> None:
        try:
            while self._first:
                await asyncio.sleep(0)  # so that all who begin in the same moment share it
                names = [*self._first]
                try:
                    async with asyncio.timeout(FIRST_SECONDS):
                        await self._look(names)
                except TimeoutError:
                    log.warning("topics_unknown", error="no answer in time")
                finally:
                    for name in names:
                        if not (waiting := self._first.pop(name)).done():
                            waiting.set_result(None)
        finally:
            self._looking = None

    async def _look(self, names: Sequence[str]) -> None:
        if self._admin is None:
            return
        try:
            async with self._admin() as asked:
                findings, told = await asked.judge_some(names)
        except TopicsError as error:
            log.warning("topics_unknown", error=str(error))
        else:
            self.learn(findings, told)

    def _turn(self, in_use: Sequence[str]) -> list[str]:
        """Return the topics whose turn it is, up to half of them such as were wrong before."""
        wrong = [*self._wrong][: LOOK_TOPICS // 2]
        for topic in wrong:  # the next look has others, should there be more
            self._wrong[topic] = self._wrong.pop(topic)
        room = LOOK_TOPICS - len(wrong)
        self._seen = min(self._seen, len(in_use))  # some may be out of use
        new = in_use[self._seen : self._seen + room]
        self._seen += len(new)
        begin = self._next if self._next < len(in_use) else 0
        again = in_use[begin : begin + room - len(new)]
        self._next = begin + len(again)
        return [*dict.fromkeys([*wrong, *new, *again])]

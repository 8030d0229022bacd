"""The topics that the wire contract demands, and how a cluster's topics differ from it.

Two demands protect answers. Reply topics keep records at least as long as an unfinished job can
still be taken over: retention of jobs + the jobs' segment time (a closed segment is deleted whole,
so a job outlives its retention by one) + the longest job + one day. And the number of partitions
of a reply topic never changes, since a job's answer is found by it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from aril.schemas import is_tenant, limits, reply_topic
from aril.worker.topics.subscription import topic_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aril.worker.settings import WorkerSettings

MS: Final = 1_000
HOUR_MS: Final = 3_600 * MS
DAY_MS: Final = 24 * HOUR_MS
DEFAULT_PARTITIONS: Final = 8  # of the jobs
DEFAULT_REPLY_PARTITIONS: Final = 1  # of each tenant's replies
# What topics are judged by: brokers are asked for no other settings.
JUDGED_CONFIGS: Final = (
    "cleanup.policy",
    "compression.type",
    "max.message.bytes",
    "message.timestamp.type",
    "retention.bytes",
    "retention.ms",
    "segment.ms",
)
DEFAULT_JOBS_RETENTION_MS: Final = 3 * DAY_MS
# Short, since reply topics must outlive the segment a job lies in.
JOBS_SEGMENT_MS: Final = HOUR_MS
DLQ_RETENTION_MS: Final = 14 * DAY_MS
# A flood of bad records is spread over as many brokers; any number does, and may grow.
DEFAULT_DLQ_PARTITIONS: Final = 3
# Key, headers and batch framing around the largest record.
FRAMING_BYTES: Final = 2_048
# With three replicas an acknowledged record survives the loss of one broker only if two have it.
MANY_REPLICAS: Final = 3
# The broker unpacks what producers have packed, and bounds and lays out the records itself: a
# packed megabyte may hold a gigabyte, which whoever reads it would have to unpack.
PLAIN: Final = "uncompressed"
FOREVER: Final = -1

Level = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which the topics differ from the contract; `str` is one line."""

    level: Level
    topic: str
    text: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}"


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the brokers describe it; `config` holds what they tell, perhaps nothing."""

    name: str
    partitions: int
    config: Mapping[str, str] = field(default_factory=dict)

    def number(self, name: str) -> int | None:
        """Return a number of the configuration, or None if the brokers do not tell it."""
        try:
            return int(self.config[name])
        except (KeyError, ValueError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicPlan:
    """What to ask of the topics that are created.

    Numbers of partitions that are given are demanded of the topics that exist, too.
    """

    jobs_partitions: int | None = None
    reply_partitions: int | None = None
    dlq_partitions: int | None = None
    replicas: int | None = None
    jobs_retention_ms: int = DEFAULT_JOBS_RETENTION_MS


@dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic to be created."""

    name: str
    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """The names and times that the topics must fit."""

    jobs_topic: str = "jobs"
    dlq_topic: str = "jobs.dlq"
    replies_prefix: str = "replies."
    longest_job_ms: int = DAY_MS

    @classmethod
    def of(cls, settings: WorkerSettings) -> Contract:
        """Return what a worker with these settings relies on."""
        return cls(
            jobs_topic=settings.jobs_topic,
            dlq_topic=settings.dlq_topic,
            replies_prefix=settings.replies_prefix,
            longest_job_ms=int(settings.max_job_age * MS),
        )

    @property
    def all_replies(self) -> str:
        """Name all tenants' reply topics in a finding."""
        return f"{self.replies_prefix}*"

    def is_jobs(self, topic: str) -> bool:
        """Tell whether workers take jobs from this topic."""
        pattern = topic_pattern(self.jobs_topic, self.dlq_topic)
        return topic == self.jobs_topic if pattern is None else bool(pattern.match(topic))

    def is_replies(self, topic: str) -> bool:
        """Tell whether this is the reply topic of some tenant."""
        prefix = self.replies_prefix
        return topic.startswith(prefix) and is_tenant(topic.removeprefix(prefix))

    def is_of_one_tenant(self, topic: str) -> bool:
        """Tell whether what is wrong with this topic is no other tenant's business."""
        own_jobs = self.jobs_topic.endswith("*") and self.is_jobs(topic)
        return own_jobs or self.is_replies(topic)

    def jobs_of(self, replies: str) -> str:
        """Return the topic of the jobs that are answered on a reply topic."""
        if self.jobs_topic.endswith("*"):
            return self.jobs_topic[:-1] + replies.removeprefix(self.replies_prefix)
        return self.jobs_topic

    def concerns(self, topic: str) -> bool:
        """Tell whether the contract speaks of this topic."""
        return self.is_jobs(topic) or self.is_replies(topic) or topic == self.dlq_topic

    def wanted(
        self, tenants: Sequence[str], plan: TopicPlan, existing: Iterable[TopicState], replicas: int
    ) -> list[NewTopic]:
        """Return every topic that must exist for these tenants, as it should be created."""
        common = {
            "cleanup.policy": "delete",
            "message.timestamp.type": "LogAppendTime",
            "min.insync.replicas": "2" if replicas >= MANY_REPLICAS else "1",
        }
        read = common | {"compression.type": PLAIN}
        jobs = {"retention.ms": str(plan.jobs_retention_ms), "segment.ms": str(JOBS_SEGMENT_MS)}
        least = _longest(
            self._outliving(plan.jobs_retention_ms, JOBS_SEGMENT_MS),
            *(self.least_reply_retention(topic) for topic in existing if self.is_jobs(topic.name)),
        )
        replies = {"retention.ms": str(least), "retention.bytes": str(FOREVER)}
        names = [reply_topic(self.replies_prefix, tenant) for tenant in tenants]
        return [
            *(
                NewTopic(name, plan.jobs_partitions or DEFAULT_PARTITIONS, read | jobs)
                for name in self._job_topics(tenants)
            ),
            NewTopic(
                self.dlq_topic,
                plan.dlq_partitions or DEFAULT_DLQ_PARTITIONS,
                common | {"retention.ms": str(DLQ_RETENTION_MS)},
            ),
            *(
                NewTopic(name, plan.reply_partitions or DEFAULT_REPLY_PARTITIONS, read | replies)
                for name in names
            ),
        ]

    def _job_topics(self, tenants: Sequence[str]) -> list[str]:
        if self.jobs_topic.endswith("*"):
            return [self.jobs_topic[:-1] + tenant for tenant in tenants]
        return [self.jobs_topic]

    def least_reply_retention(self, jobs: TopicState) -> int | None:
        """Return the milliseconds that replies to these jobs must be kept, None if untold."""
        retention, segment = jobs.number("retention.ms"), jobs.number("segment.ms")
        if retention is None or segment is None:
            return None
        return self._outliving(retention, segment)

    def _outliving(self, retention_ms: int, segment_ms: int) -> int:
        if retention_ms < 0:
            return FOREVER
        return retention_ms + segment_ms + self.longest_job_ms + DAY_MS


def _longest(*retentions: int | None) -> int:
    told = [retention for retention in retentions if retention is not None]
    return FOREVER if min(told) < 0 else max(told)


def refusals(
    contract: Contract, plan: TopicPlan, wanted: Iterable[NewTopic], existing: Iterable[TopicState]
) -> list[str]:
    """Return, a line each, the topics that cannot be as they are asked for.

    Those with another number of partitions, and a tenant's topic that has the dead letters already.
    """
    counts = {topic.name: topic.partitions for topic in existing}
    wanted = list(wanted)
    refused = []
    if [topic.name for topic in wanted].count(contract.dlq_topic) > 1:
        refused.append(f"{contract.dlq_topic} has the dead letters: jobs go unread there")
    for topic in wanted:
        asked, why = _partitions_asked(contract, plan, topic.name)
        has = counts.get(topic.name)
        if None not in (asked, has) and asked != has:
            refused.append(f"{topic.name} has {has} partitions, {asked} asked: {why}")
    return refused


def _partitions_asked(contract: Contract, plan: TopicPlan, topic: str) -> tuple[int | None, str]:
    """Return how many partitions a topic is to have, and why it gets no others."""
    if topic == contract.dlq_topic:
        return plan.dlq_partitions, "kafka-topics.sh --alter adds some, this changes no topic"
    if contract.is_replies(topic):
        return plan.reply_partitions, "the number never changes, answers are found by it"
    return plan.jobs_partitions, "the number never changes, cancels are found by it"


def judge(contract: Contract, topics: Iterable[TopicState]) -> list[Finding]:
    """Return every difference between these topics and the contract, errors first."""
    found = {topic.name: topic for topic in topics}
    jobs = [topic for name, topic in sorted(found.items()) if contract.is_jobs(name)]
    replies = [topic for name, topic in sorted(found.items()) if contract.is_replies(name)]
    findings: list[Finding] = []
    if not jobs:
        findings.append(Finding("error", contract.jobs_topic, "does not exist"))
    if contract.dlq_topic not in found:
        findings.append(Finding("error", contract.dlq_topic, "does not exist"))
    elif "compact" in found[contract.dlq_topic].config.get("cleanup.policy", ""):
        text = "is compacted: the note that a letter was replayed removes the letter"
        findings.append(Finding("warning", contract.dlq_topic, text))
    if not replies:
        text = "no tenant has a reply topic"
        findings.append(Finding("warning", contract.all_replies, text))
    for topic in (*jobs, *replies):
        findings += _untold(topic) + _same_for_all(topic)
    for topic in jobs:
        findings += _jobs_kept(contract, topic)
    for topic in replies:
        theirs = contract.jobs_of(topic.name)
        findings += _replies_kept(contract, topic, [job for job in jobs if job.name == theirs])
    return sorted(findings, key=lambda finding: (finding.level != "error", finding.topic))


def _untold(topic: TopicState) -> list[Finding]:
    needed = ("cleanup.policy", "message.timestamp.type", "retention.ms")
    missing = [name for name in needed if name not in topic.config]
    if not missing:
        return []
    return [Finding("warning", topic.name, f"the broker does not tell {', '.join(missing)}")]


def _same_for_all(topic: TopicState) -> list[Finding]:
    findings = []
    policy = topic.config.get("cleanup.policy", "delete")
    if policy != "delete":
        text = f"cleanup.policy is {policy}, must be delete: compaction removes parts of answers"
        findings.append(Finding("error", topic.name, text))
    kind = topic.config.get("message.timestamp.type", "LogAppendTime")
    if kind != "LogAppendTime":
        text = f"message.timestamp.type is {kind}, must be LogAppendTime"
        findings.append(Finding("error", topic.name, text))
    packing = topic.config.get("compression.type", PLAIN)
    if packing != PLAIN:
        text = (
            f"compression.type is {packing}, should be {PLAIN}:"
            " a small packed record may fill the memory of whoever reads it"
        )
        findings.append(Finding("warning", topic.name, text))
    largest = topic.number("max.message.bytes")
    least = max(limits.MAX_REQUEST_BYTES, limits.MAX_REPLY_BYTES) + FRAMING_BYTES
    if largest is not None and largest < least:
        text = f"max.message.bytes is {largest}, the largest records need {least}"
        findings.append(Finding("warning", topic.name, text))
    return findings


def _jobs_kept(contract: Contract, topic: TopicState) -> list[Finding]:
    kept = topic.number("retention.ms")
    if kept is None or kept < 0 or kept >= contract.longest_job_ms:
        return []
    text = (
        f"retention.ms is {kept}, shorter than ARIL_MAX_JOB_AGE ({contract.longest_job_ms} ms):"
        " jobs may be deleted unanswered"
    )
    return [Finding("warning", topic.name, text)]


def _replies_kept(
    contract: Contract, topic: TopicState, jobs: Sequence[TopicState]
) -> list[Finding]:
    findings = []
    size = topic.number("retention.bytes")
    if size is not None and size >= 0:
        text = f"retention.bytes is {size}, must be -1: running answers may lose their beginning"
        findings.append(Finding("error", topic.name, text))
    kept = topic.number("retention.ms")
    for job_topic in jobs if kept is not None and kept >= 0 else ():
        least = contract.least_reply_retention(job_topic)
        if least is not None and kept is not None and (least < 0 or kept < least):
            text = f"retention.ms is {kept}, must be at least {least} to outlive {job_topic.name}"
            findings.append(Finding("error", topic.name, text))
    return findings

"""What spans say of a job: where its record stands, what it asked for in numbers, how it ended.

Never what it says, nor what a message of ours about it says: an error is told by its code. Names
are those of OpenTelemetry's semantic conventions, messaging (1.44.0) and GenAI, both of status
Development; what they have no word for begins with `aril.`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from aril.worker.accounting import ended
from aril.worker.observe.metrics.gen_ai import PROVIDER
from aril.worker.observe.traces.phases import Phase

if TYPE_CHECKING:
    from aril.worker.job import Entry
    from aril.worker.observe.traces.recorder import Kind, Value

DROPPED: Final = "dropped"  # how a job ends here that its next owner ends

Attributes = dict[str, "Value"]


class Words(NamedTuple):
    """What one phase's span is called, of which kind it is, and what it says."""

    name: str
    kind: Kind
    attributes: Attributes


def words_of(entry: Entry, phase: Phase, *, dlq_topic: str) -> Words:
    """Return the words for a phase, but for a run, which has others for each of its pieces."""
    match phase:
        case Phase.ANSWER:
            topic, partition = entry.reply_log
            told = _sent_to(topic) | {"messaging.destination.partition.id": str(partition)}
            # Names of spans are few: the tenant is left open.
            template = topic.removesuffix(entry.tenant) + "{tenant}"
            told["messaging.destination.template"] = template
            return Words(f"send {template}", "client", told)
        case Phase.PUT_ASIDE:
            told = _sent_to(dlq_topic) | {"aril.reason": entry.dead_letter or ""}
            return Words(f"send {dlq_topic}", "client", told)
        case Phase.CLAIM:
            return Words(phase.value, "internal", _of_claim(entry))
        case _:
            return Words(phase.value, "internal", {})


def of_run(entry: Entry) -> Attributes:
    """Return what is told of a run that is over."""
    return {
        "aril.prompt_tokens": len(entry.prompt_ids),
        "aril.resumed_tokens": len(entry.resume_ids),
        "aril.tokens": len(entry.brought),
    }


def at_first(entry: Entry, *, worker: str, base: str, group: str) -> Attributes:
    """Return what a job's root says from its beginning; `base` is the backbone's name."""
    record, job = entry.record, entry.job
    told: Attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": record.source.topic,
        "messaging.destination.partition.id": str(record.source.partition),
        "messaging.kafka.offset": record.offset,
        "messaging.consumer.group.name": group,
        "messaging.client.id": worker,
        "messaging.message.body.size": entry.length,
        "gen_ai.provider.name": PROVIDER,
        "gen_ai.request.model": base,
        "aril.job": entry.job_id,
        "aril.tenant": entry.tenant,
    }
    if job is None:
        return told
    told["gen_ai.request.temperature"] = job.sampling.temperature
    told["gen_ai.request.top_p"] = job.sampling.top_p
    if job.sampling.max_tokens is not None:
        told["gen_ai.request.max_tokens"] = job.sampling.max_tokens
    adapters = (job.adapter,) if job.adapter else tuple(each.name for each in job.adapters or ())
    if adapters:
        told["aril.adapters"] = adapters
    return told


def at_last(entry: Entry, now_ms: float, *, base: str) -> Attributes:
    """Return what a job's root says once it is over here, at a time since the epoch."""
    end = ended(entry, now_ms)
    told: Attributes = {
        "gen_ai.operation.name": end.operation,
        "gen_ai.usage.input_tokens": end.prompt_tokens,
        "aril.attempt": entry.epoch.attempt,
        "aril.end": end.end if entry.settled else DROPPED,
    }
    if entry.inherited:
        told["aril.inherited_tokens"] = entry.inherited
    if entry.taken_from is not None:
        told["aril.taken_from"] = entry.taken_from.worker
    if end.first_token_seconds is not None:
        told["gen_ai.response.time_to_first_chunk"] = end.first_token_seconds
    if not entry.settled:
        return told
    told["gen_ai.usage.output_tokens"] = end.tokens
    if end.failed:
        told["error.type"] = end.end
    elif entry.finish is not None:
        told["gen_ai.response.model"] = base
        told["gen_ai.response.finish_reasons"] = (entry.finish,)
    return told


def error_of(entry: Entry) -> str | None:
    """Return the code that a job has ended with; None where it has not, or not here."""
    return entry.error.code.value if entry.error is not None and entry.settled else None


def _of_claim(entry: Entry) -> Attributes:
    """Return where a claim stands, and whose job it was."""
    epoch = entry.epoch
    told: Attributes = {"aril.claim.epoch": f"{epoch.generation}.{epoch.attempt}"}
    if entry.claimed_at is not None:
        told |= _place(*entry.reply_log, entry.claimed_at)
    if entry.taken_from is not None:
        told["aril.taken_from"] = entry.taken_from.worker
    return told


def _place(topic: str, partition: int, offset: int) -> Attributes:
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.destination.partition.id": str(partition),
        "messaging.kafka.offset": offset,
    }


def _sent_to(topic: str) -> Attributes:
    return {
        "messaging.system": "kafka",
        "messaging.operation.name": "send",
        "messaging.operation.type": "send",
        "messaging.destination.name": topic,
    }

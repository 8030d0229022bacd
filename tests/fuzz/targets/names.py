"""Names of tenants, adapters, jobs, keys and topics, and the token of a client that comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

from aril.errors import BadToken
from aril.schemas import (
    JobError,
    is_adapter,
    is_job_id,
    is_tenant,
    is_worker,
    parse_adapter,
    reply_partition,
    reply_topic,
)
from aril.schemas.adapters import Adapter
from aril.schemas.job import JobId, Tenant
from aril.schemas.signature import is_key_id
from aril.stream import ResumeToken
from aril.worker.topics.subscription import topic_pattern
from tests.fuzz.mutate import TEXTS, bend, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds, told

if TYPE_CHECKING:
    from random import Random

_GOOD: Final = (
    *("acme", "a", "0", "a-", "a" * 63, "helpdesk@" + "0f" * 32, "jobs.acme", "shared", "A.b_c-9"),
    *("host:1:ab", "w" * 128, "shared@" + "0f" * 32, "replies.acme", "jobs.dlq", "jobs.shared"),
    *("3.1200.5.0.job-1", "0.9223372036854775807.0.0.x"),
)
_MODELS: Final = (
    (is_tenant, TypeAdapter(Tenant)),
    (is_adapter, TypeAdapter(Adapter)),
    (is_job_id, TypeAdapter(JobId)),
)
_PATTERN: Final = topic_pattern("jobs.*", "jobs.dlq")
_UNSAFE: Final = frozenset("/\\\0\n\r\t \"'%{}")


def _make(rng: Random) -> str:
    if chance(rng, 0.1):
        return pick(rng, TEXTS) + pick(rng, TEXTS)
    text = pick(rng, _GOOD)
    if chance(rng, 0.2):
        return text + pick(rng, TEXTS)
    if chance(rng, 0.2):
        at = int(rng.random() * len(text))
        return text[:at] + pick(rng, TEXTS) + text[at:]
    return bend(rng, text.encode(), 1 + int(rng.random() * 2)).decode(errors="replace")


def _check(text: str) -> str:
    verdicts = [_agree(text, *each) for each in _MODELS]
    tenant, adapter, job = verdicts
    for is_name in (tenant, adapter, job, is_worker(text), is_key_id(text)):
        holds(not is_name or _UNSAFE.isdisjoint(text), "a name is safe in a path, a topic, a line")
    try:
        topic = reply_topic("replies.", text)
        holds(tenant and topic == f"replies.{text}", "a topic is of a tenant")
    except JobError as error:
        holds(not tenant, "a tenant has a topic")
        told(error)
    try:
        name, digest = parse_adapter(text)
        holds(adapter and text == (f"{name}@{digest}" if digest else name), "both parts are kept")
        holds("@" not in name and "." not in name, "a folder's name")
    except JobError as error:
        holds(not adapter, "an adapter is parsed")
        told(error)
    if job:
        holds(0 <= reply_partition(text, 7) < 7, "a partition is one of the topic's")
    found = _PATTERN is not None and _PATTERN.fullmatch(text)
    holds(not found or text != "jobs.dlq", "dead letters are not read as jobs")
    token = _token(text)
    kinds = ("tenant" * tenant, "adapter" * adapter, "job" * job, "token" * token)
    said = " ".join(filter(None, kinds))
    return f"{ACCEPTED} {said}" if said else "no_name"


def _agree(text: str, by_hand: object, model: TypeAdapter[str]) -> bool:
    """Ask both who judge a name: the function and the model of a request."""
    assert callable(by_hand)
    judged = bool(by_hand(text))
    try:
        model.validate_python(text, strict=True)
    except ValidationError:
        holds(not judged, "function and model agree on what is no name")
    else:
        holds(judged, "function and model agree on what is a name")
    return judged


def _token(text: str) -> bool:
    try:
        token = ResumeToken.parse(text)
    except BadToken:
        return False
    holds(ResumeToken.parse(str(token)) == token, "a token comes back as it was")
    return True


TARGET: Final = Target(
    name="names",
    about="names of tenants, adapters, jobs, keys and topics, and resume tokens",
    share=1_600,
    make=_make,
    check=_check,
    factor=64,
)

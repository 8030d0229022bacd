"""Names that cross the wire, and the topic that is derived from one.

Tenant and adapter names become parts of topics, folders and log lines. The patterns admit nothing
that could leave such a place: no dot, no slash, no upper case, no control character.
"""

import re
from typing import Final, NamedTuple, TypeGuard

from aril.schemas.errors import ErrorCode, JobError
from aril.schemas.limits import MAX_TOPIC_CHARS

NAME_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"
"""Tenants and adapters."""
ADAPTER_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}(@[0-9a-f]{64})?$"
"""An adapter's name, or `name@digest` to insist on one content (SHA-256, hexadecimal)."""
JOB_ID_PATTERN: Final = r"^[A-Za-z0-9._-]{1,64}$"
WORKER_PATTERN: Final = r"^[A-Za-z0-9._:-]{1,128}$"
SHARED: Final = "shared"
"""Reserved: the folder of the adapters that every tenant may use."""

# `$` also matches before a final newline in Python, hence fullmatch below.
_NAME = re.compile(NAME_PATTERN)
_ADAPTER = re.compile(ADAPTER_PATTERN)
_JOB_ID = re.compile(JOB_ID_PATTERN)
_WORKER = re.compile(WORKER_PATTERN)
_TOPIC = re.compile(r"[A-Za-z0-9._-]+")


class AdapterName(NamedTuple):
    """An adapter as a job asks for it: by name, or by name and content digest."""

    name: str
    digest: str | None


def is_tenant(text: object) -> TypeGuard[str]:
    """Whether `text` is a valid tenant name; `shared` is not."""
    return isinstance(text, str) and text != SHARED and _NAME.fullmatch(text) is not None


def is_adapter(text: object) -> TypeGuard[str]:
    """Whether `text` is a valid adapter name, with or without a digest; `shared` is not."""
    return (
        isinstance(text, str)
        and text.partition("@")[0] != SHARED
        and _ADAPTER.fullmatch(text) is not None
    )


def is_job_id(text: object) -> TypeGuard[str]:
    """Whether `text` is a valid job id."""
    return isinstance(text, str) and _JOB_ID.fullmatch(text) is not None


def is_worker(text: object) -> TypeGuard[str]:
    """Whether `text` is a valid worker name."""
    return isinstance(text, str) and _WORKER.fullmatch(text) is not None


def parse_adapter(text: str) -> AdapterName:
    """Split `name` or `name@digest`; JobError `unknown_adapter` if it is neither."""
    if not is_adapter(text):
        raise JobError(ErrorCode.UNKNOWN_ADAPTER, "adapter: not a valid adapter name")
    name, _, digest = text.partition("@")
    return AdapterName(name, digest or None)


def reply_topic(prefix: str, tenant: str) -> str:
    """Return the tenant's reply topic; it never comes from a job.

    JobError `invalid_job` if the tenant's name is not valid. A prefix that Kafka would refuse is
    a ValueError: it comes from the deployment's settings, not from a tenant.
    """
    if not is_tenant(tenant):
        raise JobError(ErrorCode.INVALID_JOB, "tenant: not a valid tenant name")
    topic = prefix + tenant
    if len(topic) > MAX_TOPIC_CHARS or _TOPIC.fullmatch(topic) is None:
        raise ValueError(f"reply topic prefix {prefix!r} makes a name that Kafka refuses")
    return topic

"""Which topics a worker reads jobs from."""

from __future__ import annotations

import re


def topic_pattern(jobs_topic: str, dlq_topic: str) -> re.Pattern[str] | None:
    """Return the subscription pattern when every tenant has a jobs topic, else None.

    The dead letters often live under the same prefix; the worker must not read them as jobs.
    """
    if not jobs_topic.endswith("*"):
        return None
    prefix = re.escape(jobs_topic.removesuffix("*"))
    return re.compile(f"^(?!{re.escape(dlq_topic)}$){prefix}[a-z0-9][a-z0-9-]{{0,62}}$")


def broker_pattern(jobs_topic: str) -> str | None:
    """Return what brokers are told to match, as they do by themselves in KIP-848, else None.

    They match by RE2, which cannot look ahead, so the dead letters are in it as well. librdkafka
    looks at it, too: only dots may be escaped.
    """
    if not jobs_topic.endswith("*"):
        return None
    prefix = jobs_topic.removesuffix("*").replace(".", r"\.")
    return f"^{prefix}[a-z0-9][a-z0-9-]{{0,62}}$"

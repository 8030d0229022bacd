"""Names cannot leave the place they are put in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aril.schemas import (
    AdapterName,
    JobError,
    is_adapter,
    is_job_id,
    is_tenant,
    is_worker,
    limits,
    parse_adapter,
    reply_topic,
)
from tests.support.records import ADAPTERS, NAMES

TRICKS = [
    "",
    ".",
    "..",
    "../acme",
    "acme/x",
    "acme\\x",
    "acme.x",
    "Acme",
    "acme ",
    "acme\n",
    "acme\x00",
    "-acme",
    "äcme",
    "shared",
    "x" * 64,
    "replies.acme",
]


@pytest.mark.parametrize("name", [*TRICKS, None, 7, b"acme", ["acme"]])
def test_tricks_are_no_names(name: object) -> None:
    """Paths, topics, control characters and other types are neither tenant nor adapter."""
    assert not is_tenant(name)
    assert not is_adapter(name)


@pytest.mark.parametrize("name", ["a", "0", "acme-42", "x" * 63])
def test_good_names(name: str) -> None:
    """Plain names are both."""
    assert is_tenant(name)
    assert is_adapter(name)


@pytest.mark.parametrize("text", ["", "a/b", "a b", "a\n", "x" * 65, "ü", None, b"a"])
def test_bad_job_ids(text: object) -> None:
    """A job id is short and printable."""
    assert not is_job_id(text)


def test_workers_may_name_host_and_port() -> None:
    """A colon is allowed for workers and for nobody else."""
    assert is_worker("host:8080")
    assert not is_job_id("host:8080")
    assert not is_worker("x" * (limits.MAX_WORKER_CHARS + 1))


@given(ADAPTERS)
def test_parse_adapter(text: str) -> None:
    """A name and its digest come apart and together again."""
    name, digest = parse_adapter(text)
    assert text == (f"{name}@{digest}" if digest else name)


@pytest.mark.parametrize("text", [*TRICKS, "a@", "a@12", "a@" + "0" * 63, "a@" + "G" * 64, "a@@"])
def test_parse_adapter_refuses(text: str) -> None:
    """What is no adapter name is an unknown adapter to its tenant."""
    with pytest.raises(JobError) as caught:
        parse_adapter(text)
    assert caught.value.code == "unknown_adapter"


def test_adapter_with_digest() -> None:
    """The digest is 64 hexadecimal digits."""
    assert parse_adapter("pirate@" + "0" * 64) == AdapterName("pirate", "0" * 64)


@given(NAMES)
def test_reply_topics_differ(tenant: str) -> None:
    """A tenant's topic is the prefix and its name: one topic per tenant."""
    assert reply_topic("replies.", tenant) == f"replies.{tenant}"


@pytest.mark.parametrize("tenant", TRICKS)
def test_reply_topic_refuses_tricks(tenant: str) -> None:
    """No tenant's name leads to another topic."""
    with pytest.raises(JobError) as caught:
        reply_topic("replies.", tenant)
    assert caught.value.code == "invalid_job"


@given(st.sampled_from(["replies/", "räplies.", "x" * 249]))
def test_reply_topic_refuses_a_bad_prefix(prefix: str) -> None:
    """A prefix from the settings that Kafka would refuse is told at once."""
    with pytest.raises(ValueError, match="prefix"):
        reply_topic(prefix, "acme")

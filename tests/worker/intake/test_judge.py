"""What records are taken for."""

from __future__ import annotations

import msgpack
import pytest

from aril.schemas import Cancel, ErrorCode, Job, encode_request
from aril.worker.intake.judge import Judge, Refused
from aril.worker.job import Partition, Record
from aril.worker.settings import load_settings


def judge(value: bytes | None, *, topic: str = "jobs", **flags: object) -> object:
    """Judge a record under some settings."""
    record = Record(Partition(topic, 0), 0, 0, None, value, ())
    return Judge(load_settings(flags=flags).settings).verdict(record)


def test_another_tenants_topic_tells_its_owner_and_no_cancel_ends_a_job() -> None:
    """A job under a wrong name is told to the topic's owner; of a cancel nobody is told."""
    flags = {"tenant_from": "topic", "jobs_topic": "jobs.*"}
    job = encode_request(Job(id="a", tenant="blackbeard", prompt="x"))
    verdict = judge(job, topic="jobs.acme", **flags)
    assert isinstance(verdict, Refused)
    assert (verdict.reason, verdict.tenant, verdict.job_id) == ("tenant_mismatch", "acme", "a")
    cancel = encode_request(Cancel(id="a", tenant="blackbeard"))
    verdict = judge(cancel, topic="jobs.acme", **flags)
    assert isinstance(verdict, Refused)
    assert (verdict.reason, verdict.tenant, verdict.job_id) == ("tenant_mismatch", None, None)


@pytest.mark.parametrize("topic", ["jobs.shared", "jobs.", "jobs.Acme", "jobs.a.b", "jobs.-"])
def test_a_topic_that_is_no_tenants_is_believed_in_nothing(topic: str) -> None:
    """A job on it may name any tenant: it is put aside with a reason, and that tenant not told."""
    flags = {"tenant_from": "topic", "jobs_topic": "jobs.*"}
    for request in (Job(id="a", tenant="victim", prompt="x"), Cancel(id="a", tenant="victim")):
        verdict = judge(encode_request(request), topic=topic, **flags)
        assert isinstance(verdict, Refused)
        assert verdict.reason == "topic_without_tenant"
        assert (verdict.tenant, verdict.job_id) == (None, None)


def test_signed_records_are_never_judged_without_keys() -> None:
    """A judge that was told of signatures and got no keys does not come up at all."""
    settings = load_settings(flags={"tenant_from": "signature", "tenant_keys": "/keys"}).settings
    with pytest.raises(ValueError, match="keys of tenants"):
        Judge(settings)


def test_good_records_pass_as_they_are() -> None:
    """A job is a job, a cancel is a cancel."""
    job = Job(id="a", tenant="acme", prompt="hello")
    assert judge(encode_request(job)) == job
    cancel = Cancel(id="a", tenant="acme")
    assert judge(encode_request(cancel)) == cancel


@pytest.mark.parametrize("value", [None, b"", b"\xc1", b"{}", b"\x80", b"\xff" * 100])
def test_what_names_nobody_is_put_aside_only(value: bytes | None) -> None:
    """A record without tenant and id goes to the dead letters with a reason."""
    verdict = judge(value)
    assert isinstance(verdict, Refused)
    assert verdict.reason
    assert (verdict.tenant, verdict.job_id) == (None, None)


def test_a_record_too_big_is_not_even_decoded() -> None:
    """The size is checked first: such a record is put aside, whoever it claims to be from."""
    job = encode_request(Job(id="a", tenant="acme", prompt="x"))
    verdict = judge(job + b"\0" * 1_000_000)
    assert isinstance(verdict, Refused)
    assert verdict.error.limit == 1_000_000
    assert verdict.tenant is None


def test_an_unknown_version_is_told_to_its_tenant() -> None:
    """Version 2 of a job names tenant and id where version 1 does: its tenant is told."""
    value = encode_request(Job(id="a", tenant="acme", prompt="x"))
    verdict = judge(value.replace(b"\xa1v\x01", b"\xa1v\x02"))
    assert isinstance(verdict, Refused)
    assert verdict.error.code is ErrorCode.UNSUPPORTED_VERSION
    assert (verdict.tenant, verdict.job_id) == ("acme", "a")


def test_a_broken_cancel_ends_nobodys_job() -> None:
    """It names a job that may be running, so it is put aside and its tenant is not answered."""
    cancel = msgpack.unpackb(encode_request(Cancel(id="a", tenant="acme")))
    verdict = judge(msgpack.packb(cancel | {"v": 2}))
    assert isinstance(verdict, Refused)
    assert verdict.reason
    assert (verdict.tenant, verdict.job_id) == (None, None)


@pytest.mark.parametrize(
    "tenant", ["../acme", "a/b", "a.b", "A", "", "a" * 64, "shared", "a\n", "jobs.dlq", "été", ".."]
)
def test_tenant_names_that_are_tricks_reach_no_topic(tenant: str) -> None:
    """No path, no other topic, no reserved name: such a record is only put aside."""
    value = msgpack.packb({"v": 1, "kind": "job", "id": "a", "tenant": tenant, "prompt": "x"})
    verdict = judge(value)
    assert isinstance(verdict, Refused)
    assert verdict.tenant is None
    assert verdict.reason


@pytest.mark.parametrize(
    ("key", "headers", "what", "limit", "given"),
    [
        (b"k" * 1_025, (), "key", 1_024, 1_025),
        (None, (("x", b"h" * 16_384),), "headers", 16_384, 16_417),
        (None, (("", None),) * 513, "headers", 16_384, 16_416),
    ],
)
def test_a_key_or_headers_too_large_are_told_to_the_tenant(
    key: bytes | None,
    headers: tuple[tuple[str, bytes | None], ...],
    what: str,
    limit: int,
    given: int,
) -> None:
    """The job is refused with limit and given; a cancel that is so large is as good as any."""
    judges = Judge(load_settings().settings)
    job = encode_request(Job(id="a", tenant="acme", prompt="x"))
    verdict = judges.verdict(Record(Partition("jobs", 0), 0, 0, key, job, headers))
    assert isinstance(verdict, Refused)
    assert verdict.error.code is ErrorCode.LIMIT_EXCEEDED
    assert verdict.error.message.startswith(f"{what}: at most {limit} bytes")
    assert (verdict.error.limit, verdict.error.given) == (limit, given)
    assert (verdict.tenant, verdict.job_id, verdict.reason) == ("acme", "a", None)
    cancel = encode_request(Cancel(id="a", tenant="acme"))
    record = Record(Partition("jobs", 0), 0, 0, key, cancel, headers)
    assert isinstance(judges.verdict(record), Cancel)


@pytest.mark.parametrize("tenant_from", ["field", "topic"])
def test_a_job_past_a_bound_of_its_shape_is_told_to_its_tenant(tenant_from: str) -> None:
    """The bound is in the error, the bytes are put aside; of a cancel nobody is told."""
    pattern = "jobs.*" if tenant_from == "topic" else "jobs.acme"
    flags = {"tenant_from": tenant_from, "jobs_topic": pattern}
    fields = msgpack.unpackb(encode_request(Job(id="a", tenant="acme", prompt="x")))
    deep = {**fields, "x": [[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}
    verdict = judge(msgpack.packb(deep), topic="jobs.acme", **flags)
    assert isinstance(verdict, Refused)
    assert (verdict.tenant, verdict.job_id, verdict.reason) == ("acme", "a", "too_deep")
    assert (verdict.error.code, verdict.error.limit) == (ErrorCode.LIMIT_EXCEEDED, 16)
    verdict = judge(msgpack.packb(deep | {"kind": "cancel"}), topic="jobs.acme", **flags)
    assert isinstance(verdict, Refused)
    assert verdict.tenant is None
    verdict = judge(msgpack.packb(deep | {"tenant": "zeta"}), topic="jobs.acme", **flags)
    assert isinstance(verdict, Refused)
    assert verdict.tenant == ("zeta" if tenant_from == "field" else None)

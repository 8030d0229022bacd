"""What is read of a dead letter: its worker's words, its sender's, and notes of replays."""

from __future__ import annotations

import dataclasses

import pytest

from aril.dead_letters.letter import (
    Identity,
    Letter,
    Note,
    Place,
    Raw,
    note_headers,
    own_headers,
    read,
)
from aril.schemas import Cancel, Job, encode_request
from tests.support.letters import JOB, SENT_MS, letter, raw, record


def test_all_that_a_worker_kept_is_read() -> None:
    """Place, times, reason and the sender's own headers; what is asked comes from the value."""
    found = letter(record(headers=[("traceparent", b"00"), ("none", None)]))
    assert found.source == Place("jobs", 5, 17)
    assert (found.sent_ms, found.put_aside_ms) == (SENT_MS, SENT_MS + 1_000)
    assert (found.reason, found.code, found.message) == (
        "missing_reply_topic",
        "invalid_job",
        "why",
    )
    assert found.headers == (("traceparent", b"00"), ("none", None))
    assert found.value == encode_request(JOB)
    assert (found.asked.kind, found.asked.tenant, found.asked.job_id) == ("job", "acme", "j1")
    assert found.vouched


def test_a_lean_letter_has_no_prompt() -> None:
    """What is listed by the thousand holds neither the value nor the job made of it."""
    lean = letter().lean()
    assert (lean.value, lean.asked.job) == (None, None)
    assert lean.asked.job_id == "j1"
    assert lean.size == len(encode_request(JOB))
    assert b"secret" not in repr(dataclasses.astuple(lean)).encode()


@pytest.mark.parametrize(
    ("value", "kind", "tenant", "job_id"),
    [
        (encode_request(Cancel(id="j2", tenant="acme")), "cancel", "acme", "j2"),
        (encode_request(JOB).replace(b"secret prompt", b"secret prom\xff\xff"), None, None, "j1"),
        (b'{"v": 1, "kind": "job", "id": "j3", "tenant": "acme"}', None, "acme", "j3"),
        (b"", None, None, "j1"),
        (None, None, None, "j1"),
    ],
)
def test_what_is_no_job_is_named_as_far_as_it_can_be(
    value: bytes | None, kind: str | None, tenant: str | None, job_id: str
) -> None:
    """The tenant only where the value says so; the id by the key, which is the job's as a rule."""
    asked = letter(record(value), "malformed").asked
    assert (asked.kind, asked.tenant, asked.job_id) == (kind, tenant, job_id)
    assert asked.job is None
    assert kind or asked.why


def test_raw_bytes_and_beginnings_are_not_taken_for_values() -> None:
    """A cut value may end where a map does; a batch may begin as one."""
    for found in (letter(cut=True), letter(None, "unreadable_batch")):
        assert found.asked.kind is None
        assert found.asked.tenant is None
    assert letter(cut=True).cut_from == len(encode_request(JOB))
    assert letter(record()).cut_from is None


@pytest.mark.parametrize(
    ("topic", "pattern", "tenant"),
    [("jobs.zeta", "jobs.*", "zeta"), ("jobs.Z", "jobs.*", "acme"), ("other", "jobs.*", "acme")],
)
def test_a_topic_of_ones_own_says_whose_a_record_is(topic: str, pattern: str, tenant: str) -> None:
    """It goes before what the record names."""
    assert letter(record(topic=topic), jobs_topic=pattern).asked.tenant == tenant


def test_a_forged_record_is_vouched_for_by_nobody() -> None:
    """Whom it names is only what it says."""
    assert not letter(record(), "signature_invalid").vouched
    assert not letter(record(), "unsigned").vouched


def test_a_note_is_of_its_letter_and_no_sender_can_make_one() -> None:
    """Only a worker says a record's reason, and none says that."""
    found = letter()
    headers = tuple(note_headers(found, Place("jobs", 5, 93)))
    note = read(Raw(Place("jobs.dlq", 0, 9), 5, b"jobs/5/17", b"", headers), jobs_topic="jobs")
    assert note == Note(found.identity, 5, "jobs/5/93")
    forged = letter(record(headers=[("aril-replayed-to", b"x"), ("aril-reason", b"replayed")]))
    assert isinstance(forged, Letter)
    assert forged.identity == Identity(Place("jobs", 5, 17), SENT_MS)


def test_what_is_no_letter_is_none() -> None:
    """Whoever may write to the topic may write anything."""
    good = raw()
    for spoilt in (
        (),
        good.headers[1:],
        tuple((name, None) for name, _ in good.headers),
        tuple((name, b"\xff") for name, _ in good.headers),
        tuple((name, b"x") for name, _ in good.headers),
    ):
        assert read(good._replace(headers=spoilt), jobs_topic="jobs") is None


def test_a_replay_has_its_own_headers_and_says_whence_it_comes() -> None:
    """Ours are left out, the signature is not one of them; of two replays the last is told."""
    theirs = [("aril-signature", b"1.x"), ("aril-replayed-from", b"jobs.dlq/0/1"), ("a", b"b")]
    found = letter(record(headers=theirs))
    assert own_headers(found) == [
        ("aril-signature", b"1.x"),
        ("a", b"b"),
        ("aril-replayed-from", str(found.place).encode()),
    ]


@pytest.mark.parametrize("text", ["jobs/5", "jobs/x/1", "/5/1", "jobs/5/-1", "jobs/5/²"])
def test_a_place_that_is_none(text: str) -> None:
    """Three parts, two of them numbers."""
    with pytest.raises(ValueError, match=r"."):
        Place.parse(text)
    assert Place.parse("a/b/5/17") == Place("a/b", 5, 17)


def test_a_job_that_names_no_tenant_of_ours_is_still_a_job() -> None:
    """A tenant's name is checked by the schema, so what decodes can be looked up."""
    assert letter(record(Job(id="j", tenant="nowhere", prompt="x"))).asked.tenant == "nowhere"

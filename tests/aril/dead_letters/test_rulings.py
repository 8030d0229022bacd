"""Which letters may be replayed, what each refusal says, and what can be forced."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aril.dead_letters.answers import Answer, Told
from aril.dead_letters.letter import Note, Place, Raw
from aril.dead_letters.replaying import plan
from aril.dead_letters.rulings import Refusal, Rules, refusal
from aril.dead_letters.selection import Chosen
from aril.schemas import (
    Cancel,
    ClaimRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    JobError,
    ReleaseRecord,
    ReplyRecord,
    encode_reply,
    encode_request,
)
from aril.schemas.limits import MAX_HEADERS_BYTES
from aril.schemas.signature import SignatureHeader
from aril.worker.topics.contract import Contract
from tests.support.fake_worker import done, tokens
from tests.support.letters import SENT_MS, letter, record

if TYPE_CHECKING:
    from aril.dead_letters.letter import Letter

NOW_MS = SENT_MS + 100_000
FIRST = Epoch(1, 1)


def said(*records: ReplyRecord) -> Told:
    """Return what a log with these records says."""
    answer = Answer()
    for offset, each in enumerate(records):
        answer.feed(Raw(Place("replies.acme", 3, offset), 0, b"j1", encode_reply(each), ()), "j1")
    return Told("replies.acme", answers=(answer,))


def error(code: ErrorCode) -> ErrorRecord:
    """Return an error that ends a job at once."""
    return ErrorRecord.of(JobError(code, "no"), job="j1", epoch=FIRST, worker="w", index=0)


def ruling(
    found: Letter | None = None, told: Told | None = None, *notes: Note, **changes: Any
) -> Refusal | None:
    """Return why a letter is refused, in a deployment whose one topic has eight partitions."""
    topics = {"jobs": range(8)}
    given: dict[str, Any] = {
        "is_jobs": Contract().is_jobs,
        "partitions": lambda topic: topics.get(topic, ()),
        "signed": False,
        "signature_age_ms": 600_000,
        "now_ms": NOW_MS,
    }
    rules = Rules(**(given | changes))
    return refusal(found or letter(), notes, said() if told is None else told, rules)


def signature(signed_ms: int) -> tuple[str, bytes]:
    """Return a header of that time; whether it holds is not for us to say."""
    return "aril-signature", bytes(SignatureHeader("acme", "k", signed_ms, bytes(64)))


@pytest.mark.parametrize(
    "reason", ["missing_reply_topic", "reply_unwritable", "redirect_unwritable", "unknown_kind"]
)
def test_a_whole_job_of_which_no_log_says_anything_is_replayed(reason: str) -> None:
    """Whatever it was put aside for: by today's rules it is a job."""
    assert ruling(letter(reason=reason)) is None


@pytest.mark.parametrize(
    ("found", "code", "words"),
    [
        (letter(cut=True), "cut", "all may still be at jobs/5/17"),
        (letter(reason="unreadable_batch"), "raw", "raw bytes of a batch"),
        (letter(reason="unreadable_record"), "raw", "raw bytes of a batch"),
        (letter(reason="duplicate_id"), "id_taken", "one of its own"),
        (letter(record(topic="replies.acme")), "not_a_jobs_topic", "no topic that these workers"),
        (letter(record(topic="jobs.dlq")), "not_a_jobs_topic", "no topic that these workers"),
    ],
)
def test_what_can_never_be_right_is_not_forced(found: Letter, code: str, words: str) -> None:
    """A letter says itself where it goes: one that names a reply topic would forge an answer."""
    for force in (False, True):
        refused = ruling(found, force=force, again=force)
        assert refused is not None
        assert (refused.code, refused.flag) == (code, None)
        assert words in str(refused)


def test_what_lost_headers_is_not_whole() -> None:
    """Its signature, or its trace, may be among what is not kept."""
    long = record(headers=[("long", b"x" * (MAX_HEADERS_BYTES + 1))]).lean()
    refused = ruling(letter(long))
    assert refused is not None
    assert refused.code == "cut"


def test_there_is_room_for_the_header_that_says_it_is_a_replay() -> None:
    """Else it would end in limit_exceeded."""
    full = record(headers=[("long", b"x" * (MAX_HEADERS_BYTES - 40))])
    assert full == full.lean()
    refused = ruling(letter(full), force=True)
    assert refused is not None
    assert refused.code == "headers"


def test_a_partition_that_is_gone() -> None:
    """In another one the id would be another job's."""
    refused = ruling(partitions=lambda _: range(5), force=True)
    assert refused is not None
    assert refused.code == "no_partition"


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (letter(record(b"\xc1"), "malformed"), "not_a_job"),
        (letter(record(None), "empty"), "not_a_job"),
        (letter(record(encode_request(Cancel(id="j1", tenant="acme")))), "not_a_job"),
        (letter(reason="tenant_mismatch"), "not_its_tenants"),
        (letter(reason="topic_without_tenant"), "not_its_tenants"),
        (letter(reason="signature_invalid"), "signature"),
        (letter(record(headers=[signature(SENT_MS - 600_000)])), "signature"),
    ],
)
def test_what_would_come_back_is_replayed_by_force_only(found: Letter, code: str) -> None:
    """It does no harm there."""
    refused = ruling(found)
    assert refused is not None
    assert (refused.code, refused.flag) == (code, "--force")
    assert "--force" in str(refused)
    assert ruling(found, again=True) == refused
    assert ruling(found, force=True) is None


@pytest.mark.parametrize(
    ("told", "code", "words"),
    [
        (said(*(tokens("j1", 0, "a"), done("j1", 1))), "answered", "done at replies.acme/3/1"),
        (said(error(ErrorCode.INVALID_JOB)), "answered", "ended in invalid_job"),
        (said(tokens("j1", 0, "a")), "begun", "1 tokens are visible"),
        (said(ClaimRecord(job="j1", epoch=FIRST, worker="w")), "begun", "0 tokens are visible"),
    ],
)
def test_what_was_answered_or_begun_is_never_replayed(told: Told, code: str, words: str) -> None:
    """Behind a visible end nothing counts; in the middle of an answer another one is no answer."""
    refused = ruling(None, told, force=True, again=True)
    assert refused is not None
    assert (refused.code, refused.flag) == (code, None)
    assert words in str(refused)
    assert "under another id" in str(refused)


def test_a_release_is_no_beginning() -> None:
    """It changes nothing for a reader; other jobs' records and rubbish do not either."""
    assert ruling(None, said(ReleaseRecord(job="j1", epoch=FIRST, worker="w"))) is None
    answer = Answer()
    for value in (encode_reply(done("j2", 0)), b"\xc1", None):
        answer.feed(Raw(Place("replies.acme", 3, 0), 0, b"j1", value, ()), "j1")
    assert ruling(None, Told("replies.acme", answers=(answer,))) is None


def test_an_end_that_no_reader_sees_is_no_end() -> None:
    """A zombie's, say; but something was begun."""
    zombie = done("j1", 3, epoch=Epoch(1, 1))
    refused = ruling(None, said(ClaimRecord(job="j1", epoch=Epoch(2, 1), worker="w"), zombie))
    assert refused is not None
    assert refused.code == "begun"


@pytest.mark.parametrize(
    ("told", "code"),
    [
        (Told("replies.acme", missing=True), "no_reply_topic"),
        (Told("replies.acme", lost=True, answers=(Answer(),)), "answer_unknown"),
    ],
)
def test_what_nobody_can_know_is_the_operators_to_say(told: Told, code: str) -> None:
    """Workers may create the topic; an old answer may be gone."""
    refused = ruling(None, told)
    assert refused is not None
    assert (refused.code, refused.flag) == (code, "--force")
    assert ruling(None, told, force=True) is None


def test_a_replay_is_done_once() -> None:
    """The last note is told; force is for something else."""
    notes = [Note(letter().identity, SENT_MS, f"jobs/5/{to}") for to in (93, 94)]
    refused = ruling(None, None, *notes, force=True)
    assert refused is not None
    assert (refused.code, refused.flag) == ("replayed", "--again")
    assert "jobs/5/94" in str(refused)
    assert ruling(None, None, *notes, again=True) is None


def test_no_flag_is_advised_in_vain() -> None:
    """Where one refusal stands whatever is said, it is the one that is told."""
    note = Note(letter().identity, SENT_MS, "jobs/5/93")
    refused = ruling(None, said(done("j1", 0)), note)
    assert refused is not None
    assert refused.code == "answered"


@pytest.mark.parametrize("late_s", [-700, -500, 0, 590, 596, 700])
def test_a_signature_must_be_in_time_when_it_arrives(late_s: int) -> None:
    """Where workers ask for it nothing helps: its tenant has to sign the job and send it again."""
    found = letter(record(headers=[signature(NOW_MS - late_s * 1_000)]), "missing_reply_topic")
    refused = ruling(found, signed=True, force=True)
    assert (refused is None) is (late_s in {-500, 0, 590})
    if refused is not None:
        assert "acme has to sign it and send it again" in str(refused)


@pytest.mark.parametrize(
    ("reason", "header", "refused"),
    [
        ("unsigned", False, True),
        ("missing_reply_topic", False, True),  # put aside before signatures were asked for
        ("signature_invalid", True, True),
        ("signature_version", True, True),
        ("signature_malformed", True, True),
        ("signature_key_unknown", True, False),  # the key may be there by now
        ("signature_out_of_time", True, False),  # a fast clock's may be in time by now
    ],
)
def test_faults_of_signatures_that_last(reason: str, header: bool, refused: bool) -> None:
    """What would be refused again, where workers ask for signatures."""
    headers = [signature(NOW_MS)] if header else []
    ruled = ruling(letter(record(headers=headers), reason), signed=True, force=True)
    assert (ruled is not None) is refused
    assert ruled is None or ruled.code == "signature"


def test_of_letters_with_one_id_one_is_replayed() -> None:
    """The other would be its twin, or in its way."""
    letters = [letter(record(offset=at)) for at in (17, 18)]
    letters += [letter(record(b"\xc1", offset=at, key=None), "malformed") for at in (19, 20)]
    rules = Rules(
        is_jobs=lambda _: True,
        partitions=lambda _: range(8),
        signed=False,
        signature_age_ms=1,
        now_ms=NOW_MS,
        force=True,
    )
    planned = plan([Chosen(each, 1, ()) for each in letters], {}, rules)
    codes = [each.refused and each.refused.code for each in planned]
    assert codes == [None, "id_taken", None, None]
    ended = {letters[0].identity: said(done("j1", 0))}
    both = {letters[1].identity: said(done("j1", 0))} | ended
    planned = plan([Chosen(replace(each), 1, ()) for each in letters[:2]], both, rules)
    assert [each.refused and each.refused.code for each in planned] == ["answered"] * 2

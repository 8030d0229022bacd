"""Whether a letter may be replayed, and if not, why. Pure.

A replay is the same job sent again: same topic, partition, key, headers and value, so its id and
its place in the replies too. Whoever reads that id sees one stream, and behind a visible terminal
nothing counts. So what was answered, or begun, cannot be answered by a replay, and nothing can
force it; what would only come back as a dead letter can be forced, as it does no harm.
Why each is so: docs/decisions/084-dead-letters-are-replayed-as-they-were.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.dead_letters.letter import own_headers
from aril.dead_letters.selection import moment
from aril.schemas.limits import HEADER_BYTES, MAX_HEADERS_BYTES
from aril.schemas.signature import SIGNATURE_HEADER, SignatureFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from aril.dead_letters.answers import Told
    from aril.dead_letters.letter import Letter, Note

MS: Final = 1_000
# The broker gives the record its time when it comes: a signature must hold until then.
ON_ITS_WAY_MS: Final = 5_000
# A signature by these faults is as wrong the next time; a key may be there by then, and the time
# is looked at for itself.
_LASTING: Final = frozenset(
    {
        SignatureFault.UNSIGNED,
        SignatureFault.MALFORMED,
        SignatureFault.VERSION,
        SignatureFault.INVALID,
    }
)


class Refusal(NamedTuple):
    """Why a letter is not replayed; `flag` is what would have it replayed all the same."""

    code: str
    text: str
    flag: str | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.flag} replays it)" if self.flag else self.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the deployment is like, and what the operator insists on. Times in milliseconds."""

    is_jobs: Callable[[str], bool]  # whether workers take jobs from a topic
    partitions: Callable[[str], Sequence[int]]  # of a topic; none if it does not exist
    signed: bool  # whether workers demand signatures
    signature_age_ms: float
    now_ms: float
    force: bool = False
    again: bool = False


def refusal(
    letter: Letter, notes: Sequence[Note], told: Told | None, rules: Rules
) -> Refusal | None:
    """Return why a letter is not replayed, None if it may be.

    `told` is what the reply logs say of its job; None if nobody knows whose it is.
    """
    insisted = {"--force"} if rules.force else set()
    if rules.again:
        insisted.add("--again")
    refusals = (
        *_of_itself(letter),
        *_of_its_topic(letter, rules),
        *_of_its_signature(letter, rules),
        *(_of_its_answer(letter, told) if told is not None else ()),
        *_of_its_notes(notes),
    )
    # What nothing can force comes first: a flag would be advised in vain.
    ordered = sorted(refusals, key=lambda each: each.flag is not None)
    return next((each for each in ordered if each.flag not in insisted), None)


def _of_itself(letter: Letter) -> Iterator[Refusal]:
    """Of what was never whole, or never a job."""
    asked = letter.asked
    if letter.cut_from is not None:
        kept = f"only {letter.size} of {letter.cut_from} bytes are kept"
        yield Refusal("cut", f"{kept}; all may still be at {letter.source}")
    elif letter.left_out:
        kept = f"{letter.left_out} bytes of its key and headers are not kept"
        yield Refusal("cut", f"{kept}; all may still be at {letter.source}")
    elif letter.raw:
        yield Refusal("raw", f"it is no record but {asked.why}")
    elif asked.kind == "cancel":
        text = "it is a cancel: it would end the job that has its id now"
        yield Refusal("not_a_job", text, "--force")
    elif asked.kind is None:
        yield Refusal("not_a_job", f"it never was a job ({asked.why})", "--force")
    if letter.reason == "duplicate_id":
        text = "its id is another job's: its tenant has to send it under one of its own"
        yield Refusal("id_taken", text)
    if letter.reason in {"tenant_mismatch", "topic_without_tenant"}:
        text = f"workers would put it aside again ({letter.message})"
        yield Refusal("not_its_tenants", text, "--force")


def _of_its_topic(letter: Letter, rules: Rules) -> Iterator[Refusal]:
    """Of where it would be appended: what a letter says of that is not believed blindly."""
    topic, partition, _ = letter.source
    if not rules.is_jobs(topic):
        yield Refusal("not_a_jobs_topic", f"{topic} is no topic that these workers read")
    elif partition not in rules.partitions(topic):
        yield Refusal("no_partition", f"there is no partition {topic}/{partition} any more")
    headers = own_headers(letter)
    size = sum(len(name) + len(value or b"") + HEADER_BYTES for name, value in headers)
    if size > MAX_HEADERS_BYTES:
        yield Refusal("headers", f"with the header that says it is a replay it has {size} bytes")


def _of_its_signature(letter: Letter, rules: Rules) -> Iterator[Refusal]:
    """Of what workers that demand signatures would refuse; others do not look at them."""
    flag = None if rules.signed else "--force"
    who = letter.asked.tenant or "its tenant"
    must = f"{who} has to sign it and send it again"
    has_one = any(name == SIGNATURE_HEADER for name, _ in letter.headers)
    signed_ms = letter.signed_ms
    if signed_ms is not None:
        late_ms = rules.now_ms - signed_ms
        if late_ms + ON_ITS_WAY_MS > rules.signature_age_ms or -late_ms > rules.signature_age_ms:
            age = f"{rules.signature_age_ms / MS:g} s"
            text = f"its signature of {moment(signed_ms)} is not within {age} of now: {must}"
            yield Refusal("signature", text, flag)
    if letter.reason in _LASTING or (rules.signed and not has_one):
        text = f"its signature would not hold ({letter.reason}): {must}"
        yield Refusal("signature", text if has_one else f"it carries no signature: {must}", flag)


def _of_its_answer(letter: Letter, told: Told) -> Iterator[Refusal]:
    """Of what its reader would see, or has seen."""
    again = "its tenant can only send it under another id"
    if told.missing:
        text = f"there is no topic {told.topic}; `aril topics {letter.asked.tenant}` creates it"
        yield Refusal("no_reply_topic", text, "--force")
    elif (ended := told.ended) is not None:
        yield Refusal("answered", f"its id has ended in {ended.end} at {ended.ended}; {again}")
    elif (begun := told.begun) is not None:
        text = (
            f"an answer to it was begun at {begun.begun}, {begun.stream.count} tokens are visible"
        )
        yield Refusal("begun", f"{text}; {again}")
    elif told.lost:
        text = f"{told.topic} no longer holds what was said at that time: it may have been answered"
        yield Refusal("answer_unknown", text, "--force")


def _of_its_notes(notes: Sequence[Note]) -> Iterator[Refusal]:
    if notes:
        last = notes[-1]
        text = f"it was replayed at {moment(last.at_ms)} to {last.to}"
        yield Refusal("replayed", text, "--again")

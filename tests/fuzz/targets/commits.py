"""What an earlier owner of a partition committed with its offset: base of epochs and done list."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from aril.worker.job import Partition
from aril.worker.queue.assignment import Membership, PartitionState
from aril.worker.queue.commit_text import (
    BASE_DIGITS,
    BASE_END,
    base_of,
    done_list_of,
    under_way_of,
)
from aril.worker.queue.done_list import (
    MAX_OFFSET,
    METADATA_BYTES,
    VERSION,
    decode,
    encode,
    encode_from,
    open_below,
    runs_of,
)
from aril.worker.queue.ledger import Checkpoint
from aril.worker.queue.parting import Parting
from tests.fuzz.mutate import INTEGERS, bend, chance, pick
from tests.fuzz.target import ACCEPTED, Target, holds

if TYPE_CHECKING:
    from random import Random

_SOURCE: Final = Partition("jobs", 0)
_MEMBERSHIP: Final = Membership(1, 7, "m")
_POSITIONS: Final = (0, 1, 40, 10**6, 2**53, MAX_OFFSET - 1, MAX_OFFSET)
_GAPS: Final = (1, 1, 2, 3, 127, 128, 16_384, 2**40)
_MOST_RUNS: Final = 1_533


class Case(NamedTuple):
    """A committed offset with its text, and where the log ends."""

    position: int
    text: str
    end: int


def _make(rng: Random) -> Case:
    position = pick(rng, _POSITIONS)
    runs, at = [], position
    for _ in range(pick(rng, (0, 1, 2, 5, 30, 900 if chance(rng, 0.05) else 3))):
        start = at + pick(rng, _GAPS)
        at = start + pick(rng, _GAPS)
        if at > MAX_OFFSET:
            break
        runs.append(range(start, at))
    text = encode(position, runs)
    kind = rng.random()
    if 0.3 < kind < 0.7:  # the list is bent, and its checksum is right
        body = bend(rng, base64.b64decode(text)[5:])
        crc = zlib.crc32(body, zlib.crc32(position.to_bytes(8, "big")))
        version = VERSION if chance(rng, 0.95) else pick(rng, (0, 2, 255))
        text = base64.b64encode(struct.pack(">BI", version, crc) + body).decode()
    if chance(rng, 0.4):
        text = f"{pick(rng, (0, 1, 12, 10**BASE_DIGITS - 1, *INTEGERS))}{BASE_END}{text}"
    if kind > 0.7:
        text = bend(rng, text.encode()).decode(pick(rng, ("latin-1", "utf-8")), errors="replace")
    if chance(rng, 0.3) and position < MAX_OFFSET - 200:
        waiting = runs_of(sorted({position + pick(rng, range(90)) for _ in range(20)}))
        said = Parting(pick(rng, (6, 7, 0)), position + 100, waiting).encode(position, 300)
        if chance(rng, 0.3):
            said += BASE_END + encode_from(position, waiting[:9])
        if chance(rng, 0.5):
            said = bend(rng, said.encode()).decode("latin-1")
        text = f"{base_of(text)}{BASE_END}{said}{BASE_END}{text.rpartition(BASE_END)[2]}"
    end = pick(rng, (0, position, min(MAX_OFFSET, position + 50), MAX_OFFSET))
    return Case(position, text, end)


def _check(case: Case) -> str:
    position, text, end = case
    base = base_of(text)
    holds(0 <= base < 10**BASE_DIGITS, "a base is in its bounds")
    committed = Checkpoint(position, text)
    runs = done_list_of(committed)
    holds(len(runs) <= _MOST_RUNS, "there are no more runs than fit")
    at = position
    for run in runs:
        holds(at < run.start < run.stop <= MAX_OFFSET, "runs ascend and do not touch")
        at = run.stop
    holds(decode(position, encode(position, runs)) == runs, "it comes back as it was")
    holds(open_below(end, position, runs) >= 0, "a count is none below zero")
    for run in under_way_of(committed):
        holds(position <= run.start < run.stop <= MAX_OFFSET, "what is under way is not finished")
    state = PartitionState(_SOURCE, _MEMBERSHIP, end, committed)
    ledger = state.ledger
    if ledger is not None:
        # What the log does not hold was never done, so that no new job is taken for it.
        holds(not any(ledger.is_done(each) for each in (end, end + 1) if each >= position), "done")
        holds(all(ledger.is_done(run.start) for run in runs if run.start < end), "done stays done")
    holds(all(map(state.is_fresh, (end, end + 1))), "what comes later is fresh")
    state.revoked = True
    told = state.checkpoint()
    holds(told is not None and len(told.metadata) <= METADATA_BYTES, "what is said last fits")
    state.revoked = False
    kept = state.checkpoint()
    holds(kept is not None and len(kept.metadata) <= METADATA_BYTES, "what is kept fits")
    holds(kept is not None and base_of(kept.metadata) == base, "the base is kept")
    if end == MAX_OFFSET and not base and kept is not None:
        holds(done_list_of(kept) == runs, "the list is kept")
    if not text:
        return "empty"
    return f"{ACCEPTED} base" if base else ACCEPTED if runs else "nothing_known"


TARGET: Final = Target(
    name="commits",
    about="commit metadata: aril.worker.queue.done_list and the base of epochs",
    share=1_300,
    make=_make,
    check=_check,
    size=lambda case: len(case.text),
    factor=64,
)

"""What a purge deletes: never more than was counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from aril.dead_letters.letter import Place, note_headers
from aril.dead_letters.purging import count, within
from tests.support.letters import letter, raw, record

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aril.dead_letters.letter import Raw
    from aril.dead_letters.logs import Logs


def test_a_cut_is_never_behind_the_end() -> None:
    """What comes while the operator is asked stays; what is gone is gone."""
    starts, ends = {0: 5, 1: 0}, {0: 10, 1: 4}
    assert within({0: 7}, starts, ends) == {0: 7}
    assert within({0: 99, 1: 99}, starts, ends) == {0: 10, 1: 4}
    assert within({0: 2}, starts, ends) == {0: 5}
    with pytest.raises(ValueError, match="no partition 2"):
        within({2: 1}, starts, ends)


class OneLog:
    """A partition from offset 0."""

    def __init__(self, *raws: Raw) -> None:
        self._raws = raws

    async def starts(self, _: str) -> dict[int, int]:
        """See Logs."""
        return {0: 0}

    async def read(self, _: str, __: int, start: int, end: int) -> AsyncIterator[Raw]:
        """See Logs."""
        for each in self._raws[start:end]:
            yield each


async def test_letters_are_counted_by_reason_once() -> None:
    """Notes and strangers beside them: they go as well."""
    note = raw()._replace(headers=tuple(note_headers(letter(), Place("jobs", 5, 93))))
    other = raw(record(b"\xc1", offset=18), "not_msgpack")
    log = OneLog(raw(), raw(), other, note, raw()._replace(headers=()), raw(record(offset=19)))
    doomed = await count(cast("Logs", log), "jobs.dlq", {0: 5})
    assert doomed.reasons == {"missing_reply_topic": 1, "not_msgpack": 1}
    assert (doomed.letters, doomed.notes, doomed.strangers) == (2, 1, 1)

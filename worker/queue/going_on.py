"""What a worker that leaves says of the jobs that it still runs to their ends. Pure.

It goes with the last commit, beside what is said on parting:

    drains- milliseconds - runs of offsets

Whoever has the partition next leaves these jobs alone for so long, counted from its assignment, so
that no clocks have to agree. A hint, as is what is under way: a job that is claimed earlier goes on
elsewhere in mid-sentence, and one that is claimed later has stood still for a while.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from aril.worker.queue.done_list import HINT_BYTES, decode_from, encode_from

_MARK: Final = "drains-"  # no letter of base64 is a dash
_END: Final = "-"
MOST_MS: Final = 2 * 3_600_000  # the longest drain is an hour
_DIGITS: Final = len(str(MOST_MS))


class GoingOn(NamedTuple):
    """Jobs at these offsets end, or are released, within so many milliseconds."""

    ms: int
    runs: tuple[range, ...]

    def encode(self, position: int, limit: int) -> str:
        """Return it as text of at most so many characters; "" where there is nothing to say."""
        head = f"{_MARK}{min(self.ms, MOST_MS)}{_END}"
        beyond = (range(max(run.start, position), run.stop) for run in self.runs)
        runs = encode_from(position, filter(None, beyond), min(limit, HINT_BYTES) - len(head))
        return head + runs if runs else ""


NOTHING: Final = GoingOn(0, ())


def going_on_of(position: int, text: str) -> GoingOn:
    """Read what was committed with a position; nothing where that says nothing of it."""
    if not text.startswith(_MARK):
        return NOTHING
    ms, _, runs = text.removeprefix(_MARK).partition(_END)
    if not (ms.isascii() and ms.isdigit() and len(ms) <= _DIGITS and int(ms) <= MOST_MS):
        return NOTHING
    return GoingOn(int(ms), decode_from(position, runs))

"""What stands beside a committed offset, put together and taken apart. Pure.

    base of epochs : under way : going on elsewhere : said on parting : done list

The base and all between it and the done list may be left out, which then stands alone. The done
list comes first where room is short: what it leaves out is computed again. Whatever cannot be read
is nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from aril.worker.queue.done_list import METADATA_BYTES, decode, encode
from aril.worker.queue.going_on import NOTHING, GoingOn, going_on_of
from aril.worker.queue.parting import Parting, parting_of
from aril.worker.queue.under_way import under_way_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aril.worker.queue.ledger import Checkpoint, Ledger

# Between the parts; no letter of base64.
BASE_END: Final = ":"
BASE_DIGITS: Final = 15  # below 2**53 with any generation added, as `MAX_EPOCH_PART` of the schemas


class Saying(Protocol):
    """A part between base and done list."""

    def encode(self, position: int, limit: int) -> str:
        """Return it as text of at most so many characters; "" where there is nothing to say."""


def text_of(ledger: Ledger, base: int, sayings: Iterable[Saying], *, always: bool) -> str:
    """Return the text for what a ledger has to commit; with a base of 0 where `always` is set."""
    position, done = ledger.checkpoint()
    prefix = f"{base}{BASE_END}" if base or always else ""
    if len(prefix) + len(done) > METADATA_BYTES:
        done = encode(position, ledger.done_beyond, METADATA_BYTES - len(prefix))
    if prefix:
        room = METADATA_BYTES - len(prefix) - len(done) - len(BASE_END)
        for each in sayings:
            if said := each.encode(position, room):
                prefix += f"{said}{BASE_END}"
                room -= len(said) + len(BASE_END)
    return prefix + done


def base_of(metadata: str) -> int:
    """Read the base from a commit's metadata; 0 where there is none, or none to believe."""
    text, found, _ = metadata.partition(BASE_END)
    if not found or not text.isascii() or not text.isdigit() or len(text) > BASE_DIGITS:
        return 0
    return int(text)


def parting_in(committed: Checkpoint | None) -> Parting | None:
    """Read what an earlier owner said as it parted with the partition."""
    if committed is None:
        return None
    said = (parting_of(committed.position, part) for part in _between(committed))
    return next(filter(None, said), None)


def under_way_of(committed: Checkpoint | None) -> tuple[range, ...]:
    """Read which jobs an earlier owner has said to be under way."""
    return () if committed is None else under_way_in(committed.position, _between(committed))


def going_on_in(committed: Checkpoint | None) -> GoingOn:
    """Read which jobs go on at a worker that has left."""
    if committed is None:
        return NOTHING
    said = (going_on_of(committed.position, part) for part in _between(committed))
    return next((each for each in said if each.runs), NOTHING)


def done_list_of(committed: Checkpoint) -> tuple[range, ...]:
    """Read what is finished beyond a commit's position."""
    return decode(committed.position, committed.metadata.rpartition(BASE_END)[2])


def _between(committed: Checkpoint) -> Sequence[str]:
    return committed.metadata.split(BASE_END)[1:-1]

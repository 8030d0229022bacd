"""What an explorer is told, and what it keeps of each state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tests.support.explorer_log import Place
    from tests.support.explorer_owner import Owner


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How far to look: owners by number of assignments and of processes, and faulty appends."""

    generations: int
    processes: int
    faults: int
    states: int = 3_000_000
    one_by_one: bool = False  # generations are epochs of members, KIP-848


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What there is when the exploration begins."""

    first_generation: int = 1
    fresh: int = 0  # owners at the start to whom the job is fresh, one generation after the other
    unread: bool = False  # these have not read it yet
    old_epoch: tuple[int, int] | None = None  # written under before the generations began again
    truncated: bool = False  # retention may have deleted the start of the answer


@dataclass(frozen=True, slots=True)
class Flaws:
    """Planted faults that need another explorer; the others are patched into the real objects."""

    early_commit: bool = False  # the offset is finished before the terminal is acknowledged
    resent_commit: bool = False  # a refused commit goes out again, under the generation of by then
    stale_completion: bool = (
        False  # a completion is taken by the assignment that came after its own
    )
    base_forgotten: bool = False  # a proof is committed without the base that it is for
    begun_after_parting: bool = False  # by who said that it had not begun it
    stale_state: bool = False  # what was known of an older assignment is asked about a redelivery
    # Of partitions that move one by one.
    commit_after_revoke: bool = False  # by a member that gave the partition away, in its new epoch
    epoch_of_joining: bool = False  # claims are made in that of the member's first assignment
    parted_in_target: bool = False  # what is said on parting is said in the epoch that is to come
    same_epoch_again: bool = False  # a member may get a partition twice in an epoch, and begin it


@dataclass(frozen=True, slots=True)
class Remedies:
    """What the worker does not do yet; test_explorer.py shows what for."""

    terminal_read_back: bool = False  # is our own terminal visible? asked before the offset is done


class State(NamedTuple):
    """All there is to know; hashable."""

    place: Place
    late: tuple[int, ...]  # records that may land any time, or never
    owners: tuple[Owner, ...]
    generation: int
    faults: int  # that may still happen
    committed: bool
    base: int = 0  # of epochs, as it is committed for the partition
    said: str = ""  # by an owner that parted with it, as it is committed

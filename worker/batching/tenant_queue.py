"""One tenant's waiting jobs: higher priority first, then order of arrival.

Some are on the shelf. Those that are next are taken off the queue in time and made whole; they keep
their places, also before what comes with the same priority meanwhile. Pure.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

FETCHED_AT_ONCE: Final = 64  # jobs that are made whole together
FETCH_BELOW: Final = FETCHED_AT_ONCE // 2  # of these are left


class Queued(Protocol):
    """What a queue needs to know of a job."""

    @property
    def priority(self) -> int:
        """Higher is served earlier."""

    @property
    def shelved(self) -> bool:
        """Whether it lacks what it says, and cannot be served until that is fetched."""

    @property
    def whole_size(self) -> int:
        """Bytes that it holds once it is whole."""


JobT = TypeVar("JobT", bound=Queued)


class TenantQueue(Generic[JobT]):
    """The jobs of one tenant. Those that are not `alive` any more are passed over."""

    def __init__(self, alive: Callable[[JobT], bool]) -> None:
        self._alive = alive
        self._heap: list[tuple[int, int, JobT]] = []
        self._ahead: deque[tuple[int, int, JobT]] = deque()  # in order; were shelved, or still are

    def __bool__(self) -> bool:
        return bool(self._heap or self._ahead)

    def push(self, job: JobT, arrival: int) -> None:
        """Add a job; `arrival` is higher for each that comes later."""
        heapq.heappush(self._heap, (-job.priority, arrival, job))

    def ready(self) -> bool:
        """Tell whether there is no next job that is still on the shelf."""
        self._pass_over()
        first = self._ahead[0] if self._ahead_is_next() else None
        first = first or (self._heap[0] if self._heap else None)
        return first is None or not first[2].shelved

    def pop(self) -> JobT | None:
        """Remove and return the next job; None if there is none."""
        self._pass_over()
        if self._ahead_is_next():
            return self._ahead.popleft()[2]
        return heapq.heappop(self._heap)[2] if self._heap else None

    def to_fetch(self, room: int) -> list[JobT]:
        """Return the shelved jobs that are next and were not asked for, if it is time.

        With those before them they take no more than `room` bytes, but for one that is larger.
        """
        self._pass_over()
        found: list[JobT] = []
        first = self._heap[0] if self._heap else None
        if first is None or not first[2].shelved:
            return found
        # Not those behind: the queue would wait for the one that is next, and that for them.
        before = [turn for turn in self._ahead if turn < first]
        taken = sum(turn[2].whole_size for turn in before)
        if len(before) >= FETCH_BELOW or (taken * 2 > room and before):
            return found  # many at once, seldom
        room -= taken
        behind = next(itertools.islice(self._ahead, len(before), None), None)
        while self._heap and self._heap[0][2].shelved and len(found) < FETCHED_AT_ONCE:
            turn = self._heap[0]
            if behind is not None and behind < turn:
                break
            room -= turn[2].whole_size
            if room < 0 and (found or before):
                break
            heapq.heappop(self._heap)
            at = len(self._ahead)
            while at and turn < self._ahead[at - 1]:  # of a higher priority, and came later
                at -= 1
            self._ahead.insert(at, turn)
            found.append(turn[2])
            self._pass_over()
        return found

    def _ahead_is_next(self) -> bool:
        return bool(self._ahead) and (not self._heap or self._ahead[0] < self._heap[0])

    def _pass_over(self) -> None:
        while self._heap and not self._alive(self._heap[0][2]):
            heapq.heappop(self._heap)
        while self._ahead and not self._alive(self._ahead[0][2]):
            self._ahead.popleft()

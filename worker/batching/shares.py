"""What each tenant holds of the engine, and who gives way to whom.

An engine has rows, adapter slots and a KV cache. A tenant's share is the largest part that it holds
of any of them, over its weight (dominant resource fairness: Ghodsi et al., NSDI 2011). A job that
finds no room takes it from a tenant whose share is larger than its own tenant's, and is no smaller
when it has given way. So nobody takes back what it gave, and alone a tenant has the whole engine.
Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


@dataclass(frozen=True, slots=True)
class Capacity:
    """What an engine has."""

    rows: int
    slots: int
    tokens: int | None = None  # of the KV cache; None: nobody says, so it is not shared out


@dataclass(frozen=True, slots=True)
class Use:
    """What one job takes of it while it runs."""

    tenant: str
    adapters: frozenset[str] = frozenset()
    tokens: int = 0


class Spare(NamedTuple):
    """The largest shares that tenants would have left that gave up a row, or slots."""

    row: float
    slots: Sequence[float]  # one an adapter: without all jobs that use it; the largest first


class Shares:
    """What jobs hold that run, in the order in which they began."""

    def __init__(
        self, capacity: Capacity, weight: Callable[[str], float], running: Iterable[Use] = ()
    ) -> None:
        """Prepare; `weight` is asked for a tenant's, above 0."""
        self._capacity = capacity
        self._weight = weight
        self._rows: Counter[str] = Counter()  # by tenant
        self._tokens: Counter[str] = Counter()  # by tenant
        self._using: Counter[str] = Counter()  # rows, by adapter
        self._adapters: Counter[tuple[str, str]] = Counter()  # rows, by tenant and adapter
        self._slots: Counter[str] = Counter()  # distinct adapters, by tenant
        self._all_rows = self._all_tokens = 0
        for use in running:
            self.add(use)

    def add(self, use: Use) -> None:
        """Note that a job begins."""
        self._all_rows += 1
        self._all_tokens += use.tokens
        self._rows[use.tenant] += 1
        self._tokens[use.tenant] += use.tokens
        for adapter in use.adapters:
            self._using[adapter] += 1
            self._adapters[use.tenant, adapter] += 1
            self._slots[use.tenant] += self._adapters[use.tenant, adapter] == 1

    def remove(self, use: Use) -> None:
        """Note that one ends."""
        self._all_rows -= 1
        self._all_tokens -= use.tokens
        self._rows[use.tenant] -= 1
        self._tokens[use.tenant] -= use.tokens
        for adapter in use.adapters:
            self._using[adapter] -= 1
            if not self._using[adapter]:
                del self._using[adapter]
            self._adapters[use.tenant, adapter] -= 1
            self._slots[use.tenant] -= not self._adapters[use.tenant, adapter]

    def of(self, tenant: str) -> float:
        """Return a tenant's share: 1 where it has all of something, at weight 1."""
        capacity = self._capacity
        largest = max(
            self._rows[tenant] / capacity.rows,
            self._slots[tenant] / capacity.slots,
            self._tokens[tenant] / capacity.tokens if capacity.tokens else 0.0,
        )
        return largest / self._weight(tenant)

    def rows_of(self, tenant: str) -> int:
        """Return how many rows a tenant has."""
        return self._rows[tenant]

    def adapters_with(self, use: Use) -> int:
        """Return how many adapters a job's tenant would use beside it."""
        new = sum(not self._adapters[use.tenant, each] for each in use.adapters)
        return self._slots[use.tenant] + new

    def fits(self, use: Use) -> bool:
        """Tell whether a job finds room beside what runs; alone it always does."""
        capacity = self._capacity
        if not self._all_rows:
            return True
        slots = len(self._using) + sum(each not in self._using for each in use.adapters)
        tokens = self._all_tokens + use.tokens
        return (
            self._all_rows < capacity.rows
            and (slots <= capacity.slots or not use.adapters)
            and (capacity.tokens is None or tokens <= capacity.tokens)
        )

    def above(self, tenant: str) -> list[str]:
        """Return the tenants whose share is larger than one's, the largest first."""
        least = self.of(tenant)
        shares = {each: self.of(each) for each, rows in self._rows.items() if rows}
        return sorted((each for each in shares if shares[each] > least), key=shares.__getitem__)[
            ::-1
        ]

    def spare(self, running: Iterable[Use]) -> Spare:
        """Return what can be had of these jobs at most; they are those that are noted here."""
        on: defaultdict[str, list[Use]] = defaultdict(list)
        row = -1.0
        for use in running:
            row = max(row, self._left([use]))
            for adapter in use.adapters:
                on[adapter].append(use)
        return Spare(row, sorted(map(self._left, on.values()), reverse=True))

    def may_find_room(self, use: Use, spare: Spare) -> bool:
        """Tell whether others may give way to a job; if not, nobody has to look who."""
        if self.fits(use):
            return False
        self.add(use)
        gained = self.of(use.tenant)
        lacking = len(self._using) - self._capacity.slots if use.adapters else 0
        self.remove(use)
        return gained <= spare.row and (
            lacking <= 0 or (lacking <= len(spare.slots) and gained <= spare.slots[lacking - 1])
        )

    def _left(self, uses: Sequence[Use]) -> float:
        """Return the smallest share of their tenants without these jobs."""
        for use in uses:
            self.remove(use)
        left = min(self.of(tenant) for tenant in {use.tenant for use in uses})
        for use in uses:
            self.add(use)
        return left

    def may_lose(self, use: Use, newcomer: Use) -> bool:
        """Tell whether without a job its tenant has no less than a newcomer's would have."""
        self.remove(use)
        left = self.of(use.tenant)
        self.add(newcomer)
        gained = self.of(newcomer.tenant)
        self.remove(newcomer)
        self.add(use)
        return left >= gained


def giving_way(
    running: Sequence[Use], newcomer: Use, capacity: Capacity, weight: Callable[[str], float]
) -> list[int]:
    """Return which of the running jobs give way, by their places; none if it has to wait.

    None as well if it finds room. Of a tenant the youngest goes first; where a slot is what lacks,
    those that share the adapter with the fewest rows.
    """
    shares = Shares(capacity, weight, running)
    left = dict(enumerate(running))
    gone: list[int] = []
    while not shares.fits(newcomer):
        for tenant in shares.above(newcomer.tenant):
            place = _place(left, tenant, newcomer, capacity)
            if place is not None and shares.may_lose(left[place], newcomer):
                break
        else:
            return []
        shares.remove(left.pop(place))
        gone.append(place)
    return gone


def _place(left: dict[int, Use], tenant: str, newcomer: Use, capacity: Capacity) -> int | None:
    """Return the place of a tenant's job that brings a newcomer nearer to its room."""
    own = [place for place, use in left.items() if use.tenant == tenant]
    rows = Counter(each for use in left.values() for each in use.adapters - newcomer.adapters)
    if not newcomer.adapters or len(rows) + len(newcomer.adapters) <= capacity.slots:
        return own[-1]
    fewest = {
        place: min(rows[each] for each in adapters)
        for place in own
        if (adapters := left[place].adapters - newcomer.adapters)
    }
    return min(fewest, key=lambda place: (fewest[place], -place), default=None)

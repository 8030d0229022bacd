"""What tenants ask for under faults: answers of all lengths, by adapters, cancelled, too late, bad.

Each wish says which ends are right: the checker takes no other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgpack

from tests.faults.history import DONE
from tests.support.fault_content import ADAPTERS, MIXABLE, digest_of
from tests.support.fault_forms import BY_FORM, NO_FORM, TOKENS
from tests.support.fault_packers import CODECS

if TYPE_CHECKING:
    import random

    from aril.client import JobOptions

MAX_NEW_TOKENS = 1_000  # the most that a fault worker takes
CANCELLED_SHARE = 0.08
DEADLINE_SHARE = 0.07
REFUSED_SHARE = 0.06
CONSTRAINED_SHARE = 0.2  # of those that are to be whole
ADAPTER_SHARE = 0.4
PACKED_SHARE = 0.3
PINNED_SHARE = 0.3  # of those by an adapter: it is named with its digest
SCALED_SHARE = 0.2  # of those by an adapter, or several
MIXED_SHARE = 0.2
SCALES = (0.0, 0.5, 4.0)
WEIGHTS = (-1.0, 0.25, 1.0)


@dataclass(frozen=True, slots=True)
class Pressure:
    """How much is asked: jobs that a tenant has at work at a time, their lengths, new clients."""

    lanes: int  # more than two workers have rows for, over all tenants
    lengths: tuple[int, ...]
    restarts: float = 0.2  # share of answers whose reader is thrown away on the way
    left: float = 0.03  # share of answers that nobody reads to the end


USUAL = Pressure(6, (1, 2, 7, 20, 40, 80, 160))
# Many short jobs and some long ones: three times the jobs in the same time.
HEAVY = Pressure(12, (1, 1, 2, 2, 3, 5, 7, 7, 12, 20, 20, 40, 80, 160), restarts=0.05)


@dataclass(frozen=True, slots=True)
class Wish:
    """One job, before it has a name."""

    tokens: int
    ends: frozenset[str] = frozenset({DONE})
    adapter: str | None = None  # as the job names it, perhaps with a digest
    scale: float = 1.0
    mixture: tuple[tuple[str, float], ...] = ()  # in place of an adapter
    deadline: float | None = None  # seconds
    cancel_after: float | None = None  # seconds from when it was sent
    messages: bool = False
    broken: bool = False  # its bytes are no job any more once they are sent
    form: str | None = None  # that its answer is held to
    codec: str | None = None  # that its record is packed with

    @property
    def whole(self) -> bool:
        """Whether only a complete answer is right."""
        return self.ends == {DONE}

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of all adapters that it needs."""
        if self.adapter is not None:
            return (self.adapter.partition("@")[0],)
        return tuple(name for name, _ in self.mixture)

    def options(self, job_id: str, timeout: float) -> JobOptions:
        """Return the arguments of `Client.stream`, but for the prompt."""
        options: JobOptions = {
            "job_id": job_id,
            "timeout": timeout,
            "adapter": self.adapter,
            "sampling": {"max_tokens": self.tokens, **_constraint(self.form)},
            "adapter_scale": self.scale,
            "deadline": self.deadline,
        }
        if self.mixture:
            options["adapters"] = [
                {"name": name, "weight": weight} for name, weight in self.mixture
            ]
        if self.messages:
            options["messages"] = [{"role": "user", "content": "?"}]
        return options


def draw(chance: random.Random, tenant: str, pressure: Pressure) -> Wish:
    """Draw a job of any kind, packed or not."""
    codec = chance.choice(CODECS) if chance.random() < PACKED_SHARE else None
    return replace(_draw(chance, tenant, pressure), codec=codec)


def _draw(chance: random.Random, tenant: str, pressure: Pressure) -> Wish:
    kind = chance.random() - REFUSED_SHARE
    if kind < 0:
        return _refused(chance)
    wish = _adapted(chance, tenant, Wish(chance.choice(pressure.lengths)))
    if (kind := kind - CANCELLED_SHARE) < 0:
        moment = chance.choice((0.0, chance.uniform(0, 0.3), chance.uniform(0, 3)))
        ends = frozenset({DONE, "cancelled"})
        return replace(wish, ends=ends, cancel_after=moment)
    if kind - DEADLINE_SHARE < 0:
        ends = frozenset({DONE, "deadline_exceeded"})
        seconds = chance.choice((0.001, chance.uniform(0.05, 0.5), chance.uniform(0.5, 5)))
        return replace(wish, ends=ends, deadline=seconds)
    if chance.random() < CONSTRAINED_SHARE:
        return replace(wish, tokens=TOKENS, form=chance.choice(sorted(BY_FORM)))
    return wish


def _constraint(form: str | None) -> dict[str, Any]:
    return {} if form is None else BY_FORM.get(form, NO_FORM).fields


def _adapted(chance: random.Random, tenant: str, wish: Wish) -> Wish:
    """Add an adapter, as strong as it likes, or a mixture."""
    if chance.random() >= ADAPTER_SHARE:
        return wish
    scale = chance.choice(SCALES) if chance.random() < SCALED_SHARE else 1.0
    if chance.random() < MIXED_SHARE:
        names = chance.sample(MIXABLE, len(MIXABLE))
        mixture = tuple((name, chance.choice(WEIGHTS)) for name in names)
        return replace(wish, scale=scale, mixture=mixture)
    name = chance.choice(ADAPTERS)
    pinned = f"{name}@{digest_of(tenant, name)}" if chance.random() < PINNED_SHARE else name
    return replace(wish, scale=scale, adapter=pinned)


def _refused(chance: random.Random) -> Wish:
    """Draw one that no worker can serve: each ends in an error of its own."""
    return chance.choice(
        (
            Wish(7, frozenset({"unknown_adapter"}), "nobodys"),
            Wish(7, frozenset({"unknown_adapter"}), f"{ADAPTERS[0]}@{'0' * 64}"),
            Wish(MAX_NEW_TOKENS + 1, frozenset({"limit_exceeded"})),
            Wish(7, frozenset({"invalid_job"}), messages=True),
            Wish(7, frozenset({"invalid_job"}), broken=True),
            Wish(7, frozenset({"invalid_job"}), form=NO_FORM.name),
        )
    )


def break_job(value: bytes) -> bytes:
    """Make of a job's bytes a record that says whose it is, and is no job."""
    fields = msgpack.unpackb(value) | {"adapter": "No Such Name"}
    broken: bytes = msgpack.packb(fields)
    return broken

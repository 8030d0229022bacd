"""Counters of tenants that come once and go: what is kept of them, and what that costs."""

from __future__ import annotations

from aril.worker.batching.counters import AHEAD, FEW, Counters

TENANTS = 3 * AHEAD


def serve(counters: Counters, tenant: str, cost: float) -> int:
    """Let a tenant come with one job and go; return at how many counters was looked for that."""
    counters.arrive(tenant)
    counters.turn(counters[tenant])
    counters.charge(tenant, cost)
    if not counters.many:
        return 0
    looked = counters.kept
    counters.forget(lambda _: False)
    return looked


def test_tenants_that_come_once_are_forgotten() -> None:
    """However many they are. A job has its share of the looking, not all tenants each time."""
    counters = Counters()
    looked = sum(serve(counters, f"t{number}", 1.0) for number in range(TENANTS))
    assert counters.kept <= 2 * (AHEAD + FEW) + 1
    assert looked <= 4 * TENANTS


def test_who_was_given_most_is_remembered() -> None:
    """One that goes and comes again among thousands does not begin anew; the least do."""
    counters = Counters()
    serve(counters, "heavy", 1_000.0)
    for number in range(TENANTS):
        serve(counters, f"t{number}", 1.0 + number / TENANTS)
    counters.forget(lambda _: False)
    assert counters["heavy"] == 1_000.0
    assert counters[f"t{TENANTS - 1}"] > 1.0
    assert counters["t0"] == 0.0
    assert counters.kept == AHEAD


def test_who_waits_is_kept() -> None:
    """Be its counter the lowest of all."""
    counters = Counters()
    for number in range(TENANTS):
        serve(counters, f"t{number}", 2.0)
    counters.charge("waits", 1.0)
    counters.forget("waits".__eq__)
    assert counters["waits"] == 1.0

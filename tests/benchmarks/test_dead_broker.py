"""The benchmark beside a dead broker tells states apart, and compares tails within each turn."""

from __future__ import annotations

import pytest

from benchmarks.dead_broker import DEAD, FIRST, QUIET, STATES, TURNS, rows


def test_tails_are_compared_by_state_and_turn() -> None:
    """Twice as slow in one state is a ratio of two; a slow turn of all states is none."""
    slower = {QUIET: 1.0, FIRST: 4.0, DEAD: 2.0}
    times = {
        (state, turn): [slower[state] * (turn + 1) * each / 1e3 for each in range(1, 101)]
        for state in STATES
        for turn in range(TURNS)
    }
    found = {(each.metric, each.x): each for each in rows(times)}
    for state in (FIRST, DEAD):
        by_turns = found["p99 to quiet, by turns", state]
        assert (by_turns.p20, by_turns.p80) == pytest.approx((slower[state],) * 2)
        assert found["p99 to quiet", state].p50 == pytest.approx(slower[state])
    assert found["first tokens", QUIET].p50 == 100 * TURNS
    assert found["first token, slowest", DEAD].p50 == pytest.approx(2 * 100 * TURNS)


def test_a_state_without_a_first_token_is_an_error() -> None:
    """Nothing is reported of what was not measured."""
    times = {(state, turn): [0.1] * 3 for state in STATES for turn in range(TURNS)}
    times[DEAD, 0] = []
    with pytest.raises(ValueError, match="data point"):
        rows(times)

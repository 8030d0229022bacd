"""How likely guesses are, by what came of those before."""

from __future__ import annotations

import pytest

from aril.worker.engine.answer_kinds import AnswerKind
from aril.worker.engine.guessing import MOST_REST, PATIENCE, Guess, Guessing
from aril.worker.engine.hit_rates import HitRates
from aril.worker.engine.votes import FIRST_RATES

EVIDENCE = 4


def told(guessing: Guessing, guessed: list[int], came: list[int], evidence: int = EVIDENCE) -> None:
    """Guess tokens of one evidence, and let others come."""
    guess = guessing.guess = Guess()
    for token in guessed:
        guess.add(token, evidence, 1.0)
    guessing.note(came)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.75, 1.0])
def test_a_rate_nears_the_share_of_hits(share: float) -> None:
    """From whatever it was at first, and of this evidence alone; never to 0 or to 1."""
    rates = HitRates()
    for turn in range(400):
        rates.note(EVIDENCE, hit=turn % 4 < 4 * share)
    assert rates[EVIDENCE] == pytest.approx(share, abs=0.05)
    assert 0 < rates[EVIDENCE] < 1
    others = [rates[other] for other in range(len(FIRST_RATES)) if other != EVIDENCE]
    assert others == [rate for other, rate in enumerate(FIRST_RATES) if other != EVIDENCE]


def test_a_rate_follows_what_changes() -> None:
    """As fast after a thousand guesses as after fifty."""
    rates, other = HitRates(), HitRates()
    for rate, hits in ((rates, 1_000), (other, 100)):
        for _ in range(hits):
            rate.note(EVIDENCE, hit=True)
        for _ in range(50):
            rate.note(EVIDENCE, hit=False)
    assert rates[EVIDENCE] == pytest.approx(other[EVIDENCE], abs=0.05)
    assert rates[EVIDENCE] < 0.5


def test_a_guess_counts_up_to_the_first_that_was_wrong() -> None:
    """What stands behind it was guessed of an answer that did not come."""
    guessing, other = Guessing(AnswerKind()), Guessing(AnswerKind())
    told(guessing, [1, 2, 9, 9, 9, 9], [1, 2, 3])
    told(other, [1, 2, 9], [1, 2, 3])
    assert guessing.rate(EVIDENCE) == other.rate(EVIDENCE)
    assert guessing.bias == other.bias
    assert guessing.guess is None


def test_what_is_behind_the_tokens_that_came_counts_for_nothing() -> None:
    """A guess that was not drafted is compared with the one token that comes anyway."""
    guessing, other = Guessing(AnswerKind()), Guessing(AnswerKind())
    told(guessing, [1, 2, 9], [1])
    told(other, [1], [1])
    assert guessing.rate(EVIDENCE) == other.rate(EVIDENCE) > FIRST_RATES[EVIDENCE]


def test_a_sequence_differs_from_its_kind() -> None:
    """One that copies beside one that invents: chances of all evidence part, the kind's are one."""
    kind = AnswerKind()
    copying, inventing = Guessing(kind), Guessing(kind)
    for turn in range(20):
        told(copying, [turn], [turn])
        told(inventing, [turn], [-1])
    for evidence in (EVIDENCE, EVIDENCE + 1):
        assert copying.rate(evidence) > kind.rates[evidence] > inventing.rate(evidence)
    assert Guessing(kind).rate(EVIDENCE) == pytest.approx(kind.rates[EVIDENCE])


def test_a_sequence_is_found_out_when_guesses_come_true_again() -> None:
    """After a thousand that did not, a few that do."""
    guessing = Guessing(AnswerKind())
    for _ in range(1_000):
        told(guessing, [1], [0])
    assert guessing.rate(EVIDENCE) < 0.01
    for _ in range(30):
        told(guessing, [1], [1])
    assert guessing.rate(EVIDENCE) > 0.5


def test_a_sequence_that_cannot_be_guessed_is_looked_at_every_few_steps() -> None:
    """The longer it went without, the fewer; at once again after a guess that is any good."""
    guessing = Guessing(AnswerKind())

    def looks(steps: int) -> int:
        count = 0
        for _ in range(steps):
            if not guessing.rests():
                guessing.judge(poor=True)
                count += 1
        return count

    assert looks(PATIENCE) == PATIENCE
    looks(10 * PATIENCE)
    assert looks(100 * (1 + MOST_REST)) == 100
    while guessing.rests():
        pass
    guessing.judge(poor=False)
    assert looks(PATIENCE) == PATIENCE


def test_a_sequence_whose_drafts_break_it_is_not_looked_at() -> None:
    """Not ever."""
    guessing = Guessing(AnswerKind())
    guessing.stopped = True
    assert all(guessing.rests() for _ in range(20))

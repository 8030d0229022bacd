"""What is known of earlier answers: by kind, and bounded."""

from __future__ import annotations

from aril.worker.engine.answer_kinds import KINDS, TOKENS, AnswerKind, AnswerKinds


def test_an_answer_is_found_by_its_kind_alone() -> None:
    """Those who ask as another, or of another adapter, find nothing of it."""
    kinds = AnswerKinds()
    kinds.of(("acme", ("digest",))).add([1, 2, 3])
    assert kinds.of(("acme", ("digest",))).index.followers([1, 2]) == [(2, 3)]
    for other in (("acme-test", ("digest",)), ("acme", ("other",)), ("acme", ())):
        assert kinds.of(other).index.followers([1, 2]) == []


def test_the_kinds_that_were_asked_of_last_are_known() -> None:
    """However many there were."""
    kinds = AnswerKinds()
    first = kinds.of(0)
    for key in range(1, 3 * KINDS):
        kinds.of(key)
        assert kinds.of(0) is first
        assert len(kinds) <= KINDS
    last = kinds.of(3 * KINDS - 1)
    for key in range(KINDS):
        kinds.of(-1 - key)
    assert kinds.of(0) is not first
    assert kinds.of(3 * KINDS - 1) is not last


def test_the_latest_tokens_of_a_kind_are_known() -> None:
    """As many as there is room for, the half of it at least, and of a long answer its end."""
    kind = AnswerKind()
    kind.add(range(10 * TOKENS))
    assert kind.index.latest(2) == [10 * TOKENS - 2, 10 * TOKENS - 1]
    for answer in range(3 * TOKENS // 100):
        kind.add(range(1_000 * answer, 1_000 * answer + 100))
        assert TOKENS // 2 <= len(kind.index) <= TOKENS
        assert kind.index.followers([1_000 * answer, 1_000 * answer + 1])
    assert kind.index.followers([10, 11]) == []

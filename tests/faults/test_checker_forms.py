"""The checker and constrained answers: a good one passes, each kind of wrong one is named."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aril.schemas import DoneRecord, ReplyRecord, TokensRecord
from tests.faults import history as history_module
from tests.faults.checker import check
from tests.faults.histories import FIRST, SECOND, A, claim, done, log_of
from tests.faults.history import Asked, History, fold
from tests.support.fault_forms import BY_FORM, TOKENS, WholeAnswer, whole_answer

if TYPE_CHECKING:
    from tests.faults.report import Report

CUT = 1  # tokens that were visible when the job was taken over


def history_of(form: str, told: WholeAnswer) -> History:
    """Make the history of one job that was begun by one worker and ended by another."""

    def record(start: int, stop: int, text: str, *, second: bool) -> TokensRecord:
        return TokensRecord(
            job=A.job,
            epoch=SECOND if second else FIRST,
            worker="w2" if second else "w1",
            index=start,
            ids=told.ids[start:stop],
            text=text,
        )

    end: DoneRecord = done(A, SECOND, "w2", index=len(told.ids))
    records: list[ReplyRecord] = [
        record(0, CUT, told.text[:3], second=False),
        claim(A),
        record(CUT, len(told.ids), told.text[3:], second=True),
        replace(end, finish_reason=told.finish),
    ]
    log = log_of(A.tenant, records)
    live = [(A, fold(log).events)]
    return History(asked=[Asked(A, TOKENS, form=form)], log=log, live=live)


def reported(form: str, told: WholeAnswer) -> Report:
    """Return what the checker finds of it."""
    return check(history_of(form, told))


@pytest.mark.parametrize("form", BY_FORM)
def test_a_good_answer_passes(form: str) -> None:
    """It is counted by whether it is whole."""
    told = whole_answer(*A, None, form, TOKENS)
    report = reported(form, told)
    assert report.violations == []
    kind = "whole" if told.finish == "stop" else "cut"
    assert report.counts[f"constrained, {kind}"] == 1


def test_another_token_is_noticed() -> None:
    """As one of an answer whose constraint was begun anew in the middle."""
    told = whole_answer(*A, None, "grammar", TOKENS)
    ids = (*told.ids[:CUT], told.ids[0], *told.ids[CUT + 1 :])
    assert "content" in reported("grammar", told._replace(ids=ids)).rules


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("person", '{"name":"a","age":121,"tags":["a"]}'),
        ("person", '{"name":"a","age":12,"tags":["a"]'),
        ("object", "[1]"),
        ("tree", '{"id":"abcd","next":null}'),
        ("regex", "0-end"),
        ("choice", "yes,"),
        ("grammar", "sum: 1+."),
    ],
)
def test_a_whole_answer_that_is_not_of_its_form_is_noticed(
    form: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is the very answer that the masks give: other libraries judge it."""
    told = WholeAnswer(whole_answer(*A, None, form, TOKENS).ids, text, "stop")
    monkeypatch.setattr(history_module, "whole_answer", lambda *_: told)
    assert reported(form, told).rules == {"form"}
    cut = told._replace(finish="length")
    monkeypatch.setattr(history_module, "whole_answer", lambda *_: cut)
    assert reported(form, cut).rules == set()

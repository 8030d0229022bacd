"""The process that tries constraints ends with its worker, whenever that is, without a word."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgpack
import psutil
import pytest

from aril.schemas import JobError
from aril.schemas.constraint import Constraint
from aril.worker.constraints.compiler import ConstraintCompiler
from aril.worker.constraints.trial import LENGTH
from aril.worker.constraints.trial_process import (
    TOO_MUCH,
    TrialClosedError,
    TrialProcess,
    UnreadableVocabularyError,
)
from aril.worker.constraints.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[3]
CODE = "from aril.worker.constraints.trial import main; main()"


@pytest.fixture
def trial(vocabulary: Vocabulary) -> Iterator[TrialProcess]:
    """Start one of its own."""
    made = TrialProcess(vocabulary)
    yield made
    made.close()


def record(value: object) -> bytes:
    """Write a record as the worker does."""
    data: bytes = msgpack.packb(value)
    return LENGTH.pack(len(data)) + data


@pytest.mark.parametrize("cut", [0, 2, 100, None], ids=["none", "head", "body", "whole"])
def test_it_ends_when_nobody_is_there(cut: int | None, vocabulary: Vocabulary) -> None:
    """A worker that is killed leaves records that are cut short, and nobody to answer."""
    child = subprocess.Popen(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    told = record([vocabulary.tokenizer_json, vocabulary.size, sorted(vocabulary.eos_ids)])
    child.stdin.write(told[:cut])
    child.stdin.close()
    assert child.wait(60) == 0
    assert child.stderr.read() == b""
    child.stderr.close()


def test_one_that_was_killed_is_replaced(trial: TrialProcess) -> None:
    """Whoever kills it (the system, for want of memory) costs one constraint, and not the next."""
    assert trial.refusal("regex", "a") is None
    assert trial._process is not None
    psutil.Process(trial._process.pid).kill()
    trial._process.wait()
    assert trial.refusal("regex", "a") is None


def test_a_tokenizer_that_the_engine_cannot_read_is_told() -> None:
    """For each job that asks: all others are served."""
    trial = TrialProcess(Vocabulary("{}", 4, frozenset({1})))
    for _ in range(2):
        with pytest.raises(UnreadableVocabularyError):
            trial.refusal("regex", "a")
    trial.close()
    made = ConstraintCompiler(Vocabulary("{}", 4, frozenset({1})))
    with pytest.raises(JobError, match="regex: answers of this backbone cannot be constrained"):
        made.compile(Constraint("regex", "a", "regex"))
    made.close()


def test_what_is_being_tried_while_the_worker_leaves_is_no_refusal(trial: TrialProcess) -> None:
    """Its job is the next owner's; nothing new is begun."""
    assert trial.refusal("regex", "a") is None
    asked, told = threading.Event(), list[BaseException]()
    ask = trial._ask

    def listening(process: Any, question: Any) -> Any:
        process.send_signal(signal.SIGSTOP)  # so that it is in the middle of it
        while psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
            threading.Event().wait(0.001)  # one of its threads stops the others
        asked.set()
        return ask(process, question)

    trial._ask = listening  # type: ignore[method-assign]

    def try_it() -> None:
        try:
            trial.refusal("regex", "b")
        except TrialClosedError as error:
            told.append(error)

    thread = threading.Thread(target=try_it)
    thread.start()
    assert asked.wait(30)
    trial.close()
    thread.join(30)
    assert len(told) == 1
    with pytest.raises(TrialClosedError):
        trial.refusal("regex", "a")


def test_what_ends_it_is_told_to_no_log(
    trial: TrialProcess, capfd: pytest.CaptureFixture[str]
) -> None:
    """A traceback, or a panic of the engine's, may quote what a tenant wrote."""
    assert trial.refusal("regex", b"no text") == TOO_MUCH  # type: ignore[arg-type]
    assert trial.refusal("regex", "a") is None
    assert "Traceback" not in capfd.readouterr().err

"""Constrained answers through the engine: they validate, and depend on nothing but themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import ErrorCode, JobError, Sampling
from aril.worker.constraints.compiler import ConstraintCompiler
from aril.worker.constraints.vocabulary import Vocabulary
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.request import GenerationRequest, Output
from tests.support.constrained import FORMS, Form
from tests.support.engine_runs import finish
from tests.support.tiny import make_tiny_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from aril.worker.engine.model import Backbone

PROMPT = tuple((29 * at + 3) % 384 for at in range(20))
CONFIG = EngineConfig(
    max_rows=8,
    max_step_tokens=64,
    slots=2,
    max_rank=16,
    kv_tokens=1024,
    backend="torch",
    invariant=True,
)
PADDED = 400  # the model's logits; the tokenizer has 384 tokens
HOT = 1.5
LONG = 160


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny Llama for all tests, its logits wider than its tokenizer."""
    return make_tiny_model(tmp_path_factory.mktemp("model"), "llama", vocab_size=PADDED)


@pytest.fixture(scope="module")
def backbone(model_path: Path) -> Backbone:
    """Read it once, for what does not run it."""
    return load_backbone(model_path, "cpu", torch.float32)


@pytest.fixture(scope="module")
def compiler(backbone: Backbone) -> Iterator[ConstraintCompiler]:
    """Compile for its vocabulary."""
    made = ConstraintCompiler(
        Vocabulary.of(backbone.tokenizer, backbone.vocab_size, backbone.eos_token_ids)
    )
    yield made
    made.close()


@pytest.fixture
def make_engine(model_path: Path) -> Callable[..., Engine]:
    """Engines of one model, with any limits."""

    def make(**limits: Any) -> Engine:
        return Engine(load_backbone(model_path, "cpu", torch.float32), replace(CONFIG, **limits))

    return make


@pytest.fixture
def job(compiler: ConstraintCompiler) -> Callable[..., GenerationRequest]:
    """Make requests with their constraint compiled."""

    def make(key: int, sampling: Sampling, **more: Any) -> GenerationRequest:
        asked = sampling.constraint
        return GenerationRequest(
            key=key,
            prompt_ids=PROMPT,
            sampling=sampling,
            seed=key,
            adapter=None,
            constraint=None if asked is None else compiler.compile(asked),
            **more,
        )

    return make


def ids(outputs: Iterable[Output]) -> tuple[int, ...]:
    """Tokens of the outputs, joined."""
    return tuple(token for output in outputs for token in output.ids)


def text(outputs: Iterable[Output]) -> str:
    """Text of the outputs, joined."""
    return "".join(output.text for output in outputs)


VARIED: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": HOT},
    "cut": {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "min_p": 0.01},
    "penalised": {"temperature": 1.0, "repetition_penalty": 1.3, "presence_penalty": 1.0},
    "biased": {"temperature": 1.0, "logit_bias": {str(at): 100.0 for at in range(0, 400, 9)}},
    "long": {"temperature": 1.0, "min_tokens": 12},
    "logprobs": {"temperature": 1.0, "logprobs": 3},
    "no end": {"temperature": 1.0, "ignore_eos": True},
}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_whole_answers_validate(
    form: Form, make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """Whatever else a job asks for; and some of the answers are whole."""
    jobs = [job(key, form.sampling(max_tokens=LONG, **fields)) for key, fields in
            enumerate(VARIED.values())]  # fmt: skip
    found = finish(make_engine(kv_tokens=2048), *jobs)
    whole = [key for key, outputs in found.items() if outputs[-1].finish == "stop"]
    assert whole or form.name == "object"  # random weights seldom close an object
    for key, outputs in found.items():
        assert outputs[-1].error is None
        assert outputs[-1].finish in {"stop", "length"}
        assert max(ids(outputs)) < 384
        if outputs[-1].finish == "stop":
            assert form.fault(text(outputs)) is None, (key, text(outputs))
    wanted = list(VARIED).index("logprobs")
    assert all(output.logprobs and len(output.logprobs[0].top) == 3 for output in found[wanted]
               if output.ids)  # fmt: skip


@pytest.mark.parametrize("fields", [VARIED["greedy"], VARIED["sampled"]], ids=["greedy", "hot"])
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_an_answer_that_is_taken_over_goes_on_as_if_undisturbed(
    form: Form,
    fields: dict[str, Any],
    make_engine: Callable[..., Engine],
    job: Callable[..., GenerationRequest],
) -> None:
    """Cut at every token: the same tokens, text and end, from the visible ids alone."""
    engine = make_engine(kv_tokens=8192, max_rows=8)
    request = job(1_000, form.sampling(max_tokens=24, **fields))
    undisturbed = finish(engine, request)[1_000]
    whole = ids(undisturbed)
    cuts = [replace(request, key=cut, resume_ids=whole[:cut]) for cut in range(1, len(whole))]
    for cut, outputs in finish(engine, *cuts).items():
        assert whole[:cut] + ids(outputs) == whole
        shown = "".join(output.text for output in undisturbed[:cut])
        assert shown + text(outputs) == text(undisturbed)
        assert outputs[-1].finish == undisturbed[-1].finish
    (last,) = finish(engine, replace(request, resume_ids=whole))[1_000]
    assert (last.ids, last.finish) == ((), undisturbed[-1].finish)


def test_a_preempted_answer_goes_on(
    make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """With too little cache the youngest start over: their answers are the same."""
    jobs = [job(key, FORMS[0].sampling(max_tokens=40, temperature=1.0)) for key in range(4)]
    jobs = [replace(each, salt=str(each.key)) for each in jobs]  # they share no block
    expected = finish(make_engine(), *jobs)
    tight = make_engine(kv_tokens=96)
    found = finish(tight, *jobs)
    assert tight.stats().preemptions > 0
    assert {key: ids(own) for key, own in found.items()} == {
        key: ids(own) for key, own in expected.items()
    }


def test_neighbours_do_not_see_a_constraint(
    make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """Free rows have the tokens that they have alone, and constrained ones theirs."""
    free = Sampling(max_tokens=20, temperature=1.0, logprobs=2)
    jobs = [
        job(key, free if key % 2 else FORMS[key].sampling(max_tokens=20, temperature=1.0))
        for key in range(6)
    ]
    engine = make_engine()
    together = finish(engine, *jobs)
    for each in jobs:
        assert finish(engine, each)[each.key] == together[each.key]


def test_a_complete_answer_ends_at_once(
    make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """Where nothing can follow no end token is waited for, whatever else is asked."""
    sampling = Sampling(
        max_tokens=40, min_tokens=30, choice=("yes",), ignore_eos=True, temperature=HOT
    )
    outputs = finish(make_engine(), job(0, sampling))[0]
    assert text(outputs) == "yes"
    assert outputs[-1].finish == "stop"
    assert len(ids(outputs)) <= 3
    exact = sampling.model_copy(update={"max_tokens": len(ids(outputs)), "min_tokens": 0})
    assert finish(make_engine(), job(0, exact))[0][-1].finish == "stop"


@pytest.mark.parametrize("ignore_eos", [True, False])
def test_an_answer_that_has_to_be_empty_is(
    ignore_eos: bool, make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """It ends with its first token, which has no text."""
    sampling = Sampling(max_tokens=9, regex="a{0}", ignore_eos=ignore_eos, temperature=HOT)
    engine = make_engine()
    outputs = finish(engine, job(0, sampling))[0]
    assert [(text(outputs), len(ids(outputs)), outputs[-1].finish)] == [("", 1, "stop")]
    (last,) = finish(engine, job(0, sampling, resume_ids=ids(outputs)))[0]
    assert (last.ids, last.finish) == ((), "stop")


def test_stop_tokens_end_an_answer_only_where_it_may_end(
    make_engine: Callable[..., Engine],
    job: Callable[..., GenerationRequest],
    backbone: Backbone,
) -> None:
    """A token that ends the answer is no text of it, so it is masked where more has to come."""
    digit = backbone.tokenizer.convert_tokens_to_ids("7")
    fields: dict[str, Any] = {"logit_bias": {str(digit): 100.0}, "stop_token_ids": (digit,)}
    sampling = Sampling(max_tokens=40, regex="[0-9]{3}(end)?", temperature=0.0, **fields)
    outputs = finish(make_engine(), job(0, sampling))[0]
    assert outputs[-1].finish == "stop"
    assert len(text(outputs)) == 3
    assert "7" not in text(outputs)
    assert ids(outputs)[-1] == digit


def test_what_max_tokens_cuts_is_told_as_length(
    make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """It may not validate: the reader can tell by the reason."""
    outputs = finish(make_engine(), job(0, Sampling(max_tokens=4, regex="[a-z]{60}")))[0]
    assert outputs[-1].finish == "length"
    assert FORMS[0].fault(text(outputs)) is not None


def test_a_constraint_that_dies_ends_its_row_alone(
    make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """A typed error for it; neighbours go on, and no slot or cache is held."""
    engine = make_engine()
    jobs = [job(key, FORMS[3].sampling(max_tokens=12, temperature=1.0)) for key in range(3)]
    expected = finish(engine, *jobs)
    for each in jobs:
        engine.submit(each)
    found: dict[int, list[Output]] = {}
    matcher = engine._answers[1].matcher
    assert matcher is not None
    matcher._engine.consume_token(0)  # what no answer has: it is in an error from now on
    while engine.has_work:
        for output in engine.step():
            found.setdefault(output.key, []).append(output)
    error = found[1][-1].error
    assert error is not None
    assert error.code is ErrorCode.INTERNAL
    assert "regex" in error.message
    assert [found[key] for key in (0, 2)] == [expected[key] for key in (0, 2)]
    assert engine.stats().kv_blocks_used == 0


def test_resumed_tokens_of_another_constraint_are_refused(
    make_engine: Callable[..., Engine], job: Callable[..., GenerationRequest]
) -> None:
    """They cannot be the beginning of this answer: one job's error, and nobody else's."""
    with pytest.raises(JobError, match="choice: the answer does not keep to it"):
        make_engine().submit(job(0, Sampling(max_tokens=9, choice=("yes",)), resume_ids=(5, 6)))

"""The engine as a whole: its answers do not depend on how the work was cut, placed or disturbed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aril.schemas import ErrorCode, JobError, Sampling
from aril.worker.engine import step_settings
from aril.worker.engine.answer import Answer
from aril.worker.engine.config import EngineConfig
from aril.worker.engine.engine import Engine
from aril.worker.engine.model import load_backbone
from aril.worker.engine.noise import uniform
from aril.worker.engine.penalties import shifts_of
from aril.worker.engine.request import GenerationRequest, Output
from tests.support.engine_runs import finish
from tests.support.tiny import make_tiny_model
from tests.support.weights import random_adapter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from aril.worker.adapters import AdapterWeights

GREEDY = Sampling(max_tokens=16, temperature=0.0, ignore_eos=True)
PROMPT = tuple((29 * at + 3) % 384 for at in range(40))
CONFIG = EngineConfig(
    max_rows=4, max_step_tokens=64, slots=2, max_rank=16, kv_tokens=512, backend="torch"
)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tiny Llama for all tests."""
    return make_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture
def make_engine(model_path: Path) -> Callable[..., Engine]:
    """Engines of one model, with any limits."""

    def make(**limits: Any) -> Engine:
        return Engine(load_backbone(model_path, "cpu", torch.float32), replace(CONFIG, **limits))

    return make


def job(
    key: int, prompt: Iterable[int] = PROMPT, *, adapter: AdapterWeights | None = None, **more: Any
) -> GenerationRequest:
    """Build a greedy request of 16 tokens, or one with other fields."""
    fields: dict[str, Any] = {"sampling": GREEDY, "seed": key} | more
    return GenerationRequest(key=key, prompt_ids=tuple(prompt), adapter=adapter, **fields)


def adapter(engine: Engine, name: str, *, rank: int = 4, scaling: float = 1.0) -> AdapterWeights:
    """Random weights for every linear of the layers, told apart by the name."""
    return random_adapter(engine.backbone.linear_shapes, name, rank=rank, scaling=scaling)


def ids(outputs: Iterable[Output]) -> list[int]:
    """Tokens of the outputs, joined."""
    return [token for output in outputs for token in output.ids]


def alone(engine: Engine, request: GenerationRequest) -> list[int]:
    """Tokens of the one request, nothing else running."""
    return ids(finish(engine, request)[request.key])


def test_chunked_prefill_equals_one_shot(make_engine: Callable[..., Engine]) -> None:
    """A prompt read in chunks of 7, between another's decodes, gives the tokens of one chunk."""
    whole, chunked = make_engine(), make_engine(max_step_tokens=7)
    expected = alone(whole, job(0))
    outputs = finish(chunked, job(1, PROMPT[::-1]), job(0))
    assert ids(outputs[0]) == expected
    assert ids(outputs[1]) == alone(whole, job(1, PROMPT[::-1]))
    assert chunked.stats().steps > 16 + 2 * 40 // 7 - 1


def test_preempted_answers_are_those_of_the_undisturbed_run(
    make_engine: Callable[..., Engine],
) -> None:
    """With too little cache the youngest start over; nobody sees it but in the statistics."""
    roomy, tight = make_engine(), make_engine(kv_tokens=160)
    one = adapter(roomy, "one")
    greedy = GREEDY.model_copy(update={"max_tokens": 40})
    sampled = greedy.model_copy(update={"temperature": 1.0})
    jobs = [
        job(0, PROMPT[:17], sampling=greedy),
        job(1, PROMPT[1:18], sampling=greedy, adapter=one),
        job(2, PROMPT[2:19], sampling=sampled),
        job(3, PROMPT[3:20], sampling=sampled, adapter=one),
    ]
    expected = {job.key: alone(roomy, job) for job in jobs}
    outputs = finish(tight, *jobs)
    assert {key: ids(own) for key, own in outputs.items()} == expected
    assert tight.stats().preemptions > 0
    assert tight.stats().kv_blocks_used == tight.stats().slots_used == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("cut", [1, 9, 15])
def test_resumed_answers_go_on_as_if_undisturbed(
    cut: int, temperature: float, make_engine: Callable[..., Engine]
) -> None:
    """From the first tokens as forced prompt: the same tokens, and the same pieces of text."""
    engine = make_engine()
    sampling = GREEDY.model_copy(update={"temperature": temperature, "repetition_penalty": 1.2})
    request = job(0, sampling=sampling, adapter=adapter(engine, "one"))
    undisturbed = finish(engine, request)[0]
    resumed = finish(engine, replace(request, resume_ids=tuple(ids(undisturbed)[:cut])))[0]
    assert resumed == undisturbed[cut:]


def test_resuming_an_answer_that_has_ended_ends_it(make_engine: Callable[..., Engine]) -> None:
    """Visible tokens up to the end leave only the end to tell; tokens past it are refused."""
    engine = make_engine()
    end = next(iter(engine.backbone.eos_token_ids))
    sampling = GREEDY.model_copy(update={"ignore_eos": False})
    outputs = finish(engine, job(0, sampling=sampling, resume_ids=(7, end)))
    assert outputs[0] == [Output(0, finish="stop")]
    outputs = finish(engine, job(1, resume_ids=tuple(range(16))))
    assert outputs[1] == [Output(1, finish="length")]
    with pytest.raises(JobError, match="past the answer's end"):
        engine.submit(job(2, sampling=sampling, resume_ids=(end, 7)))
    assert not engine.has_work


def test_a_slot_used_again_leaves_no_residue(make_engine: Callable[..., Engine]) -> None:
    """One slot, a large adapter before a smaller one: the tokens of a fresh engine."""
    engine, fresh = make_engine(slots=1), make_engine(slots=1)
    small = adapter(engine, "small", rank=2)
    modules = {name: own for name, own in small.modules.items() if "v_proj" in name}
    small = replace(small, modules=modules)
    alone(engine, job(0, adapter=adapter(engine, "large", rank=16)))
    assert alone(engine, job(1, adapter=small)) == alone(fresh, job(1, adapter=small))
    assert engine.stats().adapter_loads == 2


def test_more_adapters_than_slots_are_all_served_right(make_engine: Callable[..., Engine]) -> None:
    """Five adapters share two slots; each answer is that of the adapter alone."""
    engine, other = make_engine(), make_engine()
    jobs = [job(key, adapter=adapter(engine, f"adapter-{key}")) for key in range(5)]
    outputs = finish(engine, *jobs, job(5))
    for request in (*jobs, job(5)):
        assert ids(outputs[request.key]) == alone(other, request)
    assert len({tuple(ids(own)) for own in outputs.values()}) == 6


def test_an_adapter_gone_wrong_harms_only_its_own_job(make_engine: Callable[..., Engine]) -> None:
    """Weights that overflow end their job with `internal`; neighbours and successors are unharmed.

    The successors get the very blocks of the cache that the NaN were written to.
    """
    engine = make_engine(kv_tokens=192)
    expected = alone(engine, job(0)), alone(engine, job(1, adapter=adapter(engine, "good")))
    wild = adapter(engine, "wild", scaling=1e30)
    for _ in range(2):
        outputs = finish(
            engine,
            job(2, PROMPT[:9], adapter=wild),
            job(0),
            job(1, adapter=adapter(engine, "good")),
        )
        (last,) = outputs[2]
        assert last.error is not None
        assert last.error.code == ErrorCode.INTERNAL
        assert (ids(outputs[0]), ids(outputs[1])) == expected


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"prompt": ()}, ValueError),
        ({"prompt": (3, 384)}, ValueError),
        ({"prompt": (-1, 3)}, ValueError),
        ({"prompt": (3,), "resume_ids": (999,)}, JobError),
        ({"sampling": Sampling(max_tokens=480)}, ValueError),  # context of 512
        ({"prompt": PROMPT * 5, "sampling": Sampling(max_tokens=60)}, ValueError),
    ],
)
def test_what_cannot_be_served_is_refused_at_submit(
    wrong: dict[str, Any], error: type[Exception], make_engine: Callable[..., Engine]
) -> None:
    """Before anything runs, the job that is running goes on to its own answer.

    A typed error for what may come from a log, a plain one for what `Prompts` lets nobody ask.
    """
    engine = make_engine(kv_tokens=256)
    expected = alone(engine, job(0))
    engine.submit(job(0))
    found = ids(engine.step())
    with pytest.raises(error) as caught:
        engine.submit(job(1, **wrong))
    assert not isinstance(caught.value, JobError) or caught.value.code == ErrorCode.INVALID_JOB
    while engine.has_work:
        found += ids(engine.step())
    assert found == expected


@pytest.mark.parametrize(("kv_tokens", "context"), [(100, 96), (4096, 512)])
def test_the_context_is_what_backbone_and_cache_hold(
    kv_tokens: int, context: int, make_engine: Callable[..., Engine]
) -> None:
    """Whole blocks of the cache, or the positions of the backbone; so much is served."""
    engine = make_engine(kv_tokens=kv_tokens)
    assert engine.context == context
    answer = Sampling(max_tokens=2, temperature=0.0, ignore_eos=True)
    prompt = (7,) * (context - 2)
    assert len(ids(finish(engine, job(0, prompt, sampling=answer))[0])) == 2
    with pytest.raises(ValueError, match=f"{context + 1} tokens"):
        engine.submit(job(1, (*prompt, 7), sampling=answer))


def test_cancelled_jobs_end_at_once_and_free_what_they_held(
    make_engine: Callable[..., Engine],
) -> None:
    """Running, waiting or already ended: no further output, no row, block or slot in use."""
    engine = make_engine(max_rows=1)
    engine.submit(job(0, adapter=adapter(engine, "one")))
    engine.submit(job(1))
    engine.submit(job(2, resume_ids=tuple(range(16))))
    engine.step()
    engine.submit(job(3, resume_ids=tuple(range(16))))
    assert engine.stats().running == engine.stats().waiting == 1
    for key in (0, 1, 3, 99):
        engine.cancel(key)
    assert not engine.has_work
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.kv_blocks_used, stats.slots_used) == (0, 0, 0, 0)


def test_statistics_of_a_step(make_engine: Callable[..., Engine]) -> None:
    """Rows, distinct adapters and tokens of the last step, and what it holds of cache and slots."""
    engine = make_engine()
    one, two = adapter(engine, "one"), adapter(engine, "two")
    for key, own in enumerate((one, two, one, None)):
        engine.submit(job(key, PROMPT[: 10 + key], adapter=own))
    engine.step()
    first = engine.stats()
    assert (first.rows, first.adapters, first.tokens, first.steps) == (4, 2, 46, 1)
    assert (first.kv_blocks_used, first.kv_blocks) == (4, 32)
    assert (first.slots_used, first.slots, first.adapter_loads) == (2, 2, 2)
    engine.step()
    assert engine.stats().tokens == 4


def test_logprobs_are_of_the_token_that_was_chosen(make_engine: Callable[..., Engine]) -> None:
    """Each token comes with its own log probability, the best of the step when greedy."""
    sampling = GREEDY.model_copy(update={"logprobs": 2})
    for output in finish(make_engine(), job(0, sampling=sampling))[0]:
        assert output.logprobs is not None
        (entry,) = output.logprobs
        assert entry.top[0] == (output.ids[0], entry.chosen)
        assert len(entry.top) == 2


def test_text_is_that_of_the_tokens_and_stops_count(make_engine: Callable[..., Engine]) -> None:
    """The pieces joined are the decoded answer; a stop token ends it, its text left out."""
    engine = make_engine()
    outputs = finish(engine, job(0))[0]
    decode = engine.backbone.tokenizer.decode
    assert "".join(output.text for output in outputs) == decode(
        ids(outputs), skip_special_tokens=True
    )
    assert [output.finish for output in outputs] == [None] * 15 + ["length"]
    stop = ids(outputs)[5]
    sampling = GREEDY.model_copy(update={"stop_token_ids": (stop,)})
    stopped = finish(engine, job(0, sampling=sampling))[0]
    assert ids(stopped) == ids(outputs)[: ids(outputs).index(stop) + 1]
    assert stopped[-1].finish == "stop"


def test_sampled_answers_do_not_depend_on_the_batch(make_engine: Callable[..., Engine]) -> None:
    """A seeded answer is the same alone and beside three others."""
    sampling = GREEDY.model_copy(update={"temperature": 0.9, "top_p": 0.95})
    engine = make_engine()
    request = job(7, sampling=sampling)
    expected = alone(engine, request)
    outputs = finish(engine, job(0), job(1, PROMPT[:3]), request, job(2, PROMPT[5:]))
    assert ids(outputs[7]) == expected
    assert alone(engine, replace(request, seed=8)) != expected


def whole(engine: Engine, *requests: GenerationRequest) -> dict[int, list[Output]]:
    """Run requests to their ends; return each one's outputs."""
    outputs: dict[int, list[Output]] = {}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for output in engine.step():
            outputs.setdefault(output.key, []).append(output)
    return outputs


@pytest.mark.parametrize("place", ["shifts_of", "uniform", "push"])
def test_what_fails_for_one_row_ends_that_row_alone(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """Penalties, sampler or text raise: `internal` for that job, its neighbours' answers unchanged.

    What it held is free again.
    """
    sampling = Sampling(max_tokens=6, ignore_eos=True, repetition_penalty=1.2)
    jobs = [job(key, PROMPT[key:], sampling=sampling) for key in range(3)]
    expected = whole(make_engine(), *jobs)
    engine, poison = make_engine(), 1

    def raises_for_poison(inner: Callable[..., Any], is_poison: Callable[..., bool]) -> Any:
        def outer(*args: Any) -> Any:
            if is_poison(*args):
                raise IndexError("a secret prompt")
            return inner(*args)

        return outer

    if place == "shifts_of":
        monkeypatch.setattr(
            step_settings,
            "shifts_of",
            raises_for_poison(shifts_of, lambda row, _: row.prompt_ids == jobs[poison].prompt_ids),
        )
    elif place == "uniform":
        monkeypatch.setattr(
            step_settings,
            "uniform",
            raises_for_poison(uniform, lambda seed, index: seed == poison and index == 2),
        )
    else:
        monkeypatch.setattr(
            Answer,
            "push",
            raises_for_poison(Answer.push, lambda answer, _: answer is engine._answers.get(poison)),
        )
    got = whole(engine, *jobs)
    assert {key: got[key] for key in (0, 2)} == {key: expected[key] for key in (0, 2)}
    error = got[poison][-1].error
    assert error is not None
    assert error.code is ErrorCode.INTERNAL
    assert "secret" not in error.message
    assert engine.stats().kv_blocks_used == 0
    assert engine.stats().running == 0


def test_an_adapter_that_cannot_be_loaded_ends_its_own_job(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Typed where the reason is, `internal` otherwise; its neighbour and its slot are unharmed."""
    neighbour = job(0, PROMPT[:9])
    expected = whole(make_engine(), neighbour)
    engine = make_engine()
    full = JobError(ErrorCode.OVERLOADED, "adapter: no memory")
    reasons: list[Exception] = [full, RuntimeError("a secret path")]

    def load(*_: object) -> None:
        raise reasons.pop(0)

    monkeypatch.setattr(engine.layers, "load", load)
    bad = [job(key, PROMPT[:5], adapter=adapter(engine, f"a{key}")) for key in (1, 2)]
    got = whole(engine, neighbour, *bad)
    assert got[0] == expected[0]
    errors = [got[key][-1].error for key in (1, 2)]
    assert errors[0] is full
    assert errors[1] is not None
    assert errors[1].code is ErrorCode.INTERNAL
    assert "secret" not in errors[1].message
    assert engine.stats().slots_used == 0


def test_what_fails_for_every_row_ends_the_engine(
    make_engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No one job is to blame: the step raises, and nobody is told that it were."""
    engine = make_engine()
    for key in range(2):
        engine.submit(job(key, PROMPT[:9]))

    def broken(*_: object) -> None:
        raise RuntimeError("all of it")

    monkeypatch.setattr("aril.worker.engine.step_sampling.sample", broken)
    with pytest.raises(RuntimeError, match="all of it"):
        engine.step()


def test_nothing_ends_an_answer_before_its_least_length(
    make_engine: Callable[..., Engine],
) -> None:
    """A token that would end it does not come before; another worker goes on as the first did."""
    plain = ids(finish(make_engine(), job(0))[0])
    ends = (plain[2], plain[3])
    bounded = replace_sampling(stop_token_ids=ends, min_tokens=6)
    outputs = finish(make_engine(), job(0, sampling=bounded))[0]
    whole = ids(outputs)
    assert len(whole) >= 6
    assert whole[:2] == plain[:2]
    assert not set(whole[:6]) & set(ends)
    rest = finish(make_engine(), job(0, sampling=bounded, resume_ids=tuple(whole[:4])))[0]
    assert whole[:4] + ids(rest) == whole
    assert (
        finish(make_engine(), job(0, sampling=replace_sampling(stop_token_ids=ends)))[0][-1].finish
        == "stop"
    )


def test_ids_that_no_model_has_end_nothing(make_engine: Callable[..., Engine]) -> None:
    """Jobs name end tokens as they like: beyond the vocabulary they harm nobody."""
    far = replace_sampling(stop_token_ids=(2**31 - 1, 384), min_tokens=3)
    outputs = finish(make_engine(), job(0, sampling=far), job(1, sampling=far))
    assert [len(ids(each)) for each in outputs.values()] == [16, 16]


def test_what_is_visible_beyond_the_bound_stays(make_engine: Callable[..., Engine]) -> None:
    """A first owner may have allowed more: the answer is as long as it is, and ends so."""
    plain = ids(finish(make_engine(), job(0))[0])
    short = replace_sampling(max_tokens=4)
    outputs = finish(make_engine(), job(0, sampling=short, resume_ids=tuple(plain[:9])))[0]
    assert [(output.ids, output.finish) for output in outputs] == [((), "length")]


def test_a_bias_forces_and_forbids(make_engine: Callable[..., Engine]) -> None:
    """A hundred more and the token always comes, a hundred less and it never does."""
    plain = ids(finish(make_engine(), job(0))[0])
    forced = replace_sampling(logit_bias={"9": 100.0})
    assert ids(finish(make_engine(), job(0, sampling=forced))[0]) == [9] * 16
    without = replace_sampling(logit_bias={str(plain[0]): -100.0})
    assert plain[0] not in ids(finish(make_engine(), job(0, sampling=without))[0])


def replace_sampling(**fields: Any) -> Sampling:
    """Return the usual sampling with other fields."""
    return GREEDY.model_copy(update=fields)

"""Shared beginnings under any mix of jobs, cancellations, preemptions and memory pressure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from aril.schemas import Sampling
from aril.worker.engine.rope_lengths import RowRope
from tests.support.generation import PLAIN, CacheModel, request
from tests.support.scheduler_run import KV_BLOCK, Adapter, Limits, Run

if TYPE_CHECKING:
    from aril.worker.engine.request import GenerationRequest

TOKENS = 2  # in all prompts and answers: most begin like some other
LONGEST = 8 * KV_BLOCK
ROPES = (PLAIN, RowRope(switch=7), RowRope(grows=True, first=5))
LIMITS = st.builds(
    lambda rows, spare, blocks, slots: Limits(rows, rows + spare, blocks, slots, 4),
    st.integers(1, 5),
    st.integers(0, 12),
    st.integers(8, 24),
    st.integers(2, 3),
)


@dataclass(frozen=True)
class Asked:
    """A job, or the key of one that is cancelled; then so many steps."""

    prompt: tuple[int, ...]
    max_tokens: int
    adapter: Adapter
    scale: float
    bare: int
    salt: str
    told: bool
    resume: int
    cancel: int | None
    steps: int


ASKED = st.lists(
    st.builds(
        Asked,
        st.lists(st.integers(0, TOKENS - 1), min_size=1, max_size=16).map(tuple),
        st.integers(1, 8),
        st.sampled_from([None, None, "a", "b", ("a", "b"), ("b", "a")]),
        st.sampled_from([1.0, 1.0, 0.5]),
        st.sampled_from([0, 0, 3, 4, 5]),
        st.sampled_from(["one", "one", "two"]),
        st.sampled_from([False, False, True]),
        st.integers(0, 3),
        st.sampled_from([None, None, 0, 1, 3, 5]),
        st.integers(0, 5),
    ),
    min_size=2,
    max_size=14,
)


def job_of(key: int, asked: Asked, rope: RowRope) -> GenerationRequest:
    """Make the request; one that resumes has what it would have sampled itself."""
    sampling = Sampling(max_tokens=asked.max_tokens, prompt_logprobs=0 if asked.told else None)
    job = replace(
        request(key, asked.prompt, adapter=asked.adapter, sampling=sampling),
        adapter_scale=asked.scale,
        active_from=min(asked.bare, len(asked.prompt) - 1) if asked.adapter else 0,
        salt=asked.salt,
    )
    visible = CacheModel.answer(job, rope, vocabulary=TOKENS)[
        : min(asked.resume, asked.max_tokens - 1)
    ]
    return replace(job, resume_ids=tuple(visible))


def play(limits: Limits, rope: RowRope, jobs: list[Asked], *, prefix_cache: bool) -> Run:
    """Submit, cancel and step as asked, then run until all is done."""
    run = Run(limits, rope=rope, vocabulary=TOKENS, prefix_cache=prefix_cache)
    for key, asked in enumerate(jobs):
        run.submit(job_of(key, asked, rope))
        for _ in range(asked.steps):
            run.step()
        if asked.cancel is not None:
            run.cancel(asked.cancel)
    run.drain()
    return run


@settings(max_examples=200, deadline=None)
@given(limits=LIMITS, rope=st.sampled_from(ROPES), jobs=ASKED)
def test_what_is_found_is_what_would_have_been_computed(
    limits: Limits, rope: RowRope, jobs: list[Asked]
) -> None:
    """Every block of a running job holds its own tokens under its own adapters, RoPE and salt.

    That, and that no block is written while it is shared, is looked at in every step (`Run`).
    """
    run = play(limits, rope, jobs, prefix_cache=True)
    for key, answer in run.answers.items():
        assert answer == CacheModel.answer(run.jobs[key], rope, vocabulary=TOKENS)
    off = play(limits, rope, jobs, prefix_cache=False)
    assert off.scheduler.blocks.named == off.scheduler.prefixes.tokens == 0


@settings(max_examples=60, deadline=None)
@given(
    limits=LIMITS,
    beginning=st.integers(1, 5),
    ends=st.lists(st.integers(1, 4), min_size=2, max_size=9),
)
def test_a_beginning_is_computed_once(limits: Limits, beginning: int, ends: list[int]) -> None:
    """Jobs that come together compute full blocks of the same tokens once, if nothing is preempted.

    Each computes its own end, of less than two blocks.
    """
    limits = replace(limits, blocks=8 * len(ends))
    run = Run(limits)
    shared = tuple(range(beginning * KV_BLOCK))
    for key, end in enumerate(ends):
        own = tuple(1_000 * (key + 1) + at for at in range(end))
        run.submit(request(key, shared + own, max_tokens=1))
    run.drain()
    assert run.model.computed == len(shared) + sum(ends)
    assert run.scheduler.prefixes.hits == len(ends) - 1

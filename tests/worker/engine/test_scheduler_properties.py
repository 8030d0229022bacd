"""Step planning under any mix of jobs, cancellations and memory pressure."""

from hypothesis import given, settings
from hypothesis import strategies as st

from aril.worker.engine.mixture import members_of
from tests.support.generation import CacheModel
from tests.support.scheduler_run import KV_BLOCK, Adapter, Limits, Run

LIMITS = st.builds(
    lambda rows, spare, blocks, slots, passes: Limits(rows, rows + spare, blocks, slots, passes),
    st.integers(1, 5),
    st.integers(0, 12),
    st.integers(7, 24),
    st.integers(1, 3),
    st.integers(0, 4),
)
JOBS = st.lists(
    st.tuples(
        st.integers(1, 9),  # prompt
        st.integers(1, 12),  # max_tokens
        st.sampled_from([None, "a", "b", "c", "d", "e", ("a", "b"), ("e", "a", "c"), ("d", "d")]),
        st.integers(0, 3),  # visible tokens to resume from
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=300, deadline=None)
@given(
    limits=LIMITS,
    jobs=JOBS,
    gaps=st.lists(st.integers(0, 4), min_size=14, max_size=14),
    stretch=st.sampled_from([1.0, 1_000.0]),
)
def test_every_job_finishes_with_the_tokens_of_an_undisturbed_run(
    limits: Limits, jobs: list[tuple[int, int, Adapter, int]], gaps: list[int], stretch: float
) -> None:
    """Jobs come at any time; preempted or resumed, each ends, and with the same answer."""
    run = Run(limits, stretch=stretch)
    for (prompt, max_tokens, adapter, resume), gap in zip(jobs, gaps, strict=False):
        run.add(prompt, max_tokens, adapter, resume)
        for _ in range(gap):
            run.step()
    run.drain()
    assert run.answers == {key: CacheModel.answer(job) for key, job in run.jobs.items()}
    names = [adapter for _, _, adapter, _ in jobs]
    for name in set(names):
        order = [key for key in run.started if names[key] == name]
        assert order == sorted(order)


@settings(max_examples=150, deadline=None)
@given(
    limits=LIMITS,
    jobs=JOBS,
    gaps=st.lists(st.integers(0, 3), min_size=14, max_size=14),
    delays=st.lists(st.integers(0, 6), min_size=1, max_size=9),
)
def test_only_its_own_rows_wait_for_an_adapter(
    limits: Limits,
    jobs: list[tuple[int, int, Adapter, int]],
    gaps: list[int],
    delays: list[int],
) -> None:
    """However long adapters take into their slots: each step has a row, and answers are the same.

    `Run` checks in each step that nobody runs whose adapter is not there.
    """
    run = Run(limits, delays=delays)
    for (prompt, max_tokens, adapter, resume), gap in zip(jobs, gaps, strict=False):
        run.add(prompt, max_tokens, adapter, resume)
        for _ in range(gap):
            run.step()
    run.drain()
    assert run.answers == {key: CacheModel.answer(job) for key, job in run.jobs.items()}


@settings(max_examples=200, deadline=None)
@given(
    limits=LIMITS,
    jobs=JOBS,
    cancels=st.lists(st.tuples(st.integers(0, 13), st.integers(0, 5)), max_size=8),
)
def test_cancelling_frees_everything(
    limits: Limits, jobs: list[tuple[int, int, Adapter, int]], cancels: list[tuple[int, int]]
) -> None:
    """A job cancelled at any point is gone, its blocks and slot free, and the others go on."""
    run = Run(limits)
    for job in jobs:
        run.add(*job)
    for key, steps in cancels:
        for _ in range(steps):
            run.step()
        run.cancel(key)
    run.drain()
    for key, answer in run.answers.items():
        assert answer == CacheModel.answer(run.jobs[key])


@settings(max_examples=100, deadline=None)
@given(
    limits=LIMITS,
    backlog=st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=9
    ),
    starved=st.integers(1, 3),
    several=st.integers(1, 3),
)
def test_no_adapter_starves(
    limits: Limits, backlog: list[tuple[int, int, int]], starved: int, several: int
) -> None:
    """Against an endless stream for the resident adapters, jobs of others get in within the bound.

    Every adapter but those that wait always has jobs queued. A wait ends once `max_passes` younger
    jobs have passed and the chosen holder has drained; several waits drain several holders, and one
    for several slots drains all.
    """
    run = Run(limits)
    busy = [f"busy-{slot}" for slot in range(limits.slots)]
    longest = max(prompt + max_tokens for prompt, max_tokens, _ in backlog)
    turn = 0

    def top_up() -> None:
        nonlocal turn
        while len(run.scheduler.waiting) < 2 * limits.rows + starved:
            prompt, max_tokens, pick = backlog[turn % len(backlog)]
            run.add(prompt, max_tokens, busy[(pick + turn) % limits.slots])
            turn += 1

    top_up()
    run.step()
    keys = [
        run.add(1, 1, tuple(f"starved-{number}-{part}" for part in range(several)))
        for number in range(starved)
    ]
    bound = (limits.passes + limits.rows + starved) * longest * (1 + limits.rows) * (1 + starved)
    steps = run.steps + 3 * bound
    while not all(key in run.answers for key in keys):
        top_up()
        assert run.step()
        assert run.steps <= steps
    holder_passes = []
    for name in busy:
        younger = [key for key in run.started if key > keys[0]]
        before = younger[: younger.index(keys[0])] if keys[0] in younger else younger
        adapters = [members_of(run.jobs[key].adapter) for key in before]
        holder_passes.append(sum(adapter.digest == name for (adapter, *_) in adapters))
    assert min(holder_passes) < limits.passes + limits.rows + 1


@given(limits=LIMITS, prompt=st.integers(1, 90), max_tokens=st.integers(1, 90))
def test_a_job_is_refused_or_finishes(limits: Limits, prompt: int, max_tokens: int) -> None:
    """What is not refused by the cache's size can be run to its end even alone in the cache."""
    run = Run(limits)
    try:
        run.add(prompt, max_tokens, None)
    except ValueError:
        assert prompt + max_tokens > limits.blocks * KV_BLOCK
        return
    run.drain()
    assert len(run.answers[0]) == max_tokens

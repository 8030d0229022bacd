"""What traces are told of a job on its way: its phases as spans, at each change of its stage.

Nothing is told of a token, and nothing of a job before its turn has come: until then a few numbers
are kept. A job that is dropped before that leaves no span here, its next owner tells of its wait.
When traces are off, `NoTracing` is in the place of all this.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

from aril.worker.observe.logs import get_logger
from aril.worker.observe.traces.identity import Owner, Place
from aril.worker.observe.traces.phases import BEFORE_ITS_TURN, Interval, Phase, Phases, pieces
from aril.worker.observe.traces.recorder import Root, Told
from aril.worker.span_attributes import at_first, at_last, error_of, of_run, words_of
from aril.worker.stages import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aril.worker.job import Entry
    from aril.worker.observe.traces.recorder import JobSpan, Recorder, Value
    from aril.worker.step_tracing import Step

log = get_logger(__name__)

# Of one job on one worker: one that is parked and claimed for hours has more phases.
MOST_SPANS: Final = 32
MOST_STEPS: Final = 16  # that one span is linked to
MS_NS: Final = 1_000_000

_PHASES: Final[dict[Stage, Phase]] = {
    Stage.ARRIVED: Phase.QUEUE,
    Stage.DOOMED: Phase.QUEUE,
    Stage.WAITING: Phase.QUEUE,
    Stage.CLAIMING: Phase.CLAIM,
    Stage.PARKED: Phase.PARK,
    Stage.PREPARING: Phase.PREPARE,
    Stage.FETCHING: Phase.PREPARE,
    Stage.GATHERING: Phase.WINDOW,
    Stage.RUNNING: Phase.RUN,
    Stage.DISPLACED: Phase.DISPLACED,
    Stage.FINISHING: Phase.ANSWER,
    Stage.FAILING: Phase.ANSWER,
}
_PUT_ASIDE: Final = frozenset({Stage.UNTOLD, Stage.SETTLING})


class Tracing(Protocol):
    """Who is told of jobs. Lives on the event loop."""

    def began(self, entry: Entry) -> None:
        """Hear of a job that was read, before anything happens to it."""

    def moved(self, entry: Entry) -> None:
        """Hear that a job has come to another stage."""

    def stepped(self, step: Step) -> None:
        """Hear of one step of the engine, before of what it brought."""


class NoTracing:
    """Nobody."""

    def began(self, entry: Entry) -> None:
        """See Tracing."""

    def moved(self, entry: Entry) -> None:
        """See Tracing."""

    def stepped(self, step: Step) -> None:
        """See Tracing."""


class _Trace:
    """One job's phases, and its root once its turn has come."""

    __slots__ = ("early", "fresh", "left_out", "phases", "read_ns", "root", "spans", "steps")

    def __init__(self, read_ns: int, *, fresh: bool) -> None:
        self.read_ns = read_ns
        self.fresh = fresh  # nobody can have begun it before
        self.phases = Phases(read_ns)
        self.early: list[Interval] = []  # over before its turn has come
        self.root: JobSpan | None = None
        self.spans = 0
        self.left_out = 0
        self.steps: list[object] = []  # contexts of the steps that were traced since it runs


class JobTracing:
    """Makes spans of the jobs of one worker."""

    def __init__(
        self, recorder: Recorder, *, worker: str, base: str, group: str, dlq_topic: str
    ) -> None:
        """Prepare; `base` is the backbone's name."""
        self._recorder = recorder
        self._worker = worker
        self._base = base
        self._group = group
        self._dlq_topic = dlq_topic
        self._traces: dict[Entry, _Trace] = {}
        self._open: dict[Entry, _Trace] = {}  # of these: whose turn has come

    def began(self, entry: Entry) -> None:
        """See Tracing."""
        self._traces[entry] = _Trace(time.time_ns(), fresh=entry.owned)

    def moved(self, entry: Entry) -> None:
        """See Tracing. Whatever is wrong here is no matter of the job's."""
        trace = self._traces.get(entry)
        if trace is None:  # it is over, or not sampled
            return
        try:
            self._move(entry, trace)
        except Exception:
            log.exception("trace_given_up", job=entry.job_id, tenant=entry.tenant)
            self._forget(entry)

    def _move(self, entry: Entry, trace: _Trace) -> None:
        phase, now_ns = _phase_of(entry), time.time_ns()
        over = trace.phases.enter(phase, now_ns)
        if over is not None:
            self._take(entry, trace, over)
        if trace.root is None and not entry.over and phase not in {*BEFORE_ITS_TURN, None}:
            self._begin(entry, trace)
        if entry.over:
            self._end(entry, trace, now_ns)

    def stepped(self, step: Step) -> None:
        """See Tracing."""
        took_part = [
            (trace, trace.root)
            for entry, trace in self._open.items()
            if entry.key in step.tokens and trace.root is not None
        ]
        if not took_part:
            return
        attributes: dict[str, Value] = {
            "aril.step.jobs": len(step.tokens),
            "aril.step.tokens": sum(step.tokens.values()),
        }
        span = Told(name="step", start_ns=step.start_ns, end_ns=step.end_ns, attributes=attributes)
        context = self._recorder.step(span, [root for _, root in took_part])
        for trace, _ in took_part:
            if context is not None and len(trace.steps) < MOST_STEPS:
                trace.steps.append(context)

    def _take(self, entry: Entry, trace: _Trace, over: Interval) -> None:
        """Make spans of a phase that is over, or keep it until the root is there."""
        if trace.root is not None:
            for span in self._spans(entry, trace, over):
                self._add(trace, span)
        elif len(trace.early) < MOST_SPANS:
            trace.early.append(over)
        else:
            trace.left_out += 1

    def _begin(self, entry: Entry, trace: _Trace) -> None:
        """Begin the root: at the job's appending, if its wait was nobody else's."""
        alone = trace.fresh or (entry.owned and entry.taken_from is None)
        appended_ns = entry.record.timestamp_ms * MS_NS
        start_ns = min(appended_ns, trace.read_ns) if alone else trace.read_ns
        record = entry.record
        root = self._recorder.open(
            Root(
                name=f"process {record.source.topic}",
                start_ns=start_ns,
                headers=record.headers,
                place=Place(*record.source, record.offset, record.timestamp_ms),
                digest=entry.digest,
                owner=Owner(self._worker, entry.epoch.generation),
                taken_from=entry.taken_from,
                attributes=at_first(entry, worker=self._worker, base=self._base, group=self._group),
            )
        )
        if root is None:
            self._forget(entry)
            return
        trace.root = root
        self._open[entry] = trace
        early, trace.early = trace.early, []
        for place, over in enumerate(early):
            since_ns = start_ns if place == 0 else over.start_ns
            self._take(entry, trace, over._replace(start_ns=since_ns))

    def _end(self, entry: Entry, trace: _Trace, now_ns: int) -> None:
        if trace.root is None and entry.settled:
            self._begin(entry, trace)
        self._forget(entry)
        if trace.root is None:
            return
        attributes = at_last(entry, now_ns / MS_NS, base=self._base)
        if trace.left_out:
            attributes["aril.spans_left_out"] = trace.left_out
        trace.root.end(now_ns, attributes, error=error_of(entry))

    def _forget(self, entry: Entry) -> None:
        self._traces.pop(entry, None)
        self._open.pop(entry, None)

    def _add(self, trace: _Trace, span: Told) -> None:
        if trace.root is None or trace.spans >= MOST_SPANS:
            trace.left_out += 1
            return
        trace.spans += 1
        trace.root.add(span)

    def _spans(self, entry: Entry, trace: _Trace, over: Interval) -> Iterator[Told]:
        """Make one span of a phase, or two of a run."""
        if over.phase is not Phase.RUN:
            words = words_of(entry, over.phase, dlq_topic=self._dlq_topic)
            yield Told(
                name=words.name,
                kind=words.kind,
                start_ns=over.start_ns,
                end_ns=over.end_ns,
                attributes=words.attributes,
            )
            return
        steps, trace.steps = trace.steps, []
        for piece in pieces(over, int(entry.first_token_ms * MS_NS)):
            yield Told(
                name=piece.name,
                start_ns=piece.start_ns,
                end_ns=piece.end_ns,
                attributes=of_run(entry),
                steps=steps,
            )


def _phase_of(entry: Entry) -> Phase | None:
    stage = entry.stage
    if stage is Stage.CONDEMNED:  # where it is ours, its error is written at once
        return Phase.ANSWER if entry.owned else Phase.CLAIM
    if stage in _PUT_ASIDE:
        return None if entry.dead_letter is None else Phase.PUT_ASIDE
    return _PHASES.get(stage)

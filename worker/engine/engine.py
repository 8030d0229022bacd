"""The engine: requests in, a step at a time, tokens and text out."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer

from aril.schemas import ErrorCode, JobError
from aril.worker.engine.answer import Answer
from aril.worker.engine.device import use_device
from aril.worker.engine.filled_blocks import FilledBlocks
from aril.worker.engine.graph_start import make_graphs
from aril.worker.engine.kv_cache import KVCache
from aril.worker.engine.kv_room import with_kv_tokens
from aril.worker.engine.mixture import Mixture, members_of
from aril.worker.engine.outputs import next_output
from aril.worker.engine.probe import install_adapters
from aril.worker.engine.prompt_pace import UNBOUND
from aril.worker.engine.request import Output
from aril.worker.engine.resident import ResidentAdapters
from aril.worker.engine.run_ahead import RunAhead
from aril.worker.engine.scheduler import Scheduler
from aril.worker.engine.simple_loop import SimpleLoop
from aril.worker.engine.speculation import Speculation
from aril.worker.engine.step_cost import StepCost
from aril.worker.engine.step_forward import StepForward
from aril.worker.engine.step_sampling import StepSampler
from aril.worker.engine.text import Detokenizer
from aril.worker.observe.engine_stats import EngineStats
from aril.worker.observe.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.decode_graphs import Recorder
    from aril.worker.engine.model import Backbone
    from aril.worker.engine.request import GenerationRequest, TokenLogprobs
    from aril.worker.engine.sequence import TokenSequence
    from aril.worker.engine.step_plan import StepPlan
    from aril.worker.engine.step_sampling import Take

log = get_logger(__name__)


class Engine:
    """One backbone and its adapters, continuous batching; synchronous and single-threaded.

    Takes the backbone over: its linears are replaced. Raises UnsupportedModelError when the
    backbone does not give its own logits on packed rows. `record` says how decode steps are
    recorded, by default as CUDA graphs where the configuration lets them be; `speculation` is
    what drafts, by default by the configuration. Raises KvRoomError where the cache does not fit
    beside it.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: EngineConfig,
        *,
        record: Recorder | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        use_device(backbone.device)
        self.backbone = backbone
        self.layers = install_adapters(backbone, config)
        config = self.config = with_kv_tokens(config, backbone)
        self._slots = ResidentAdapters(config.slots, self.layers)
        self._cache = KVCache.of(backbone, config)
        self._filled = FilledBlocks()
        if speculation is None and config.speculation:
            speculation = Speculation(config.speculation)
        self._speculation = speculation
        self._scheduler = Scheduler(
            max_rows=config.max_rows,
            max_step_tokens=config.max_step_tokens,
            kv_blocks=config.kv_blocks,
            kv_block=config.kv_block,
            slots=self._slots,
            # What a token costs beside decodes was measured on CPUs alone.
            stretch=config.step_stretch if config.device == "cpu" else UNBOUND,
            rope=backbone.rope,
            prefix_cache=config.prefix_cache,
            finite=self._filled.finite,
            speculation=speculation,
            cost=StepCost(self.layers.products, backbone.layouts),
        )
        # A copy: the original may be encoding prompts in another thread.
        self._detokenizer = Detokenizer(
            Tokenizer.from_str(backbone.tokenizer.backend_tokenizer.to_str())
        )
        graphs = make_graphs(backbone, self.layers, self._cache, config, record)
        forward = StepForward(backbone, config, self.layers, self._cache, graphs)
        self._sample = StepSampler(forward, self._filled)
        self._run: Callable[[Take], StepPlan | None] = (
            RunAhead(self._scheduler, self._sample)
            if _runs_ahead(config, self._speculation)
            else SimpleLoop(self._scheduler, self._sample, self._cache)
        )
        self._answers: dict[int, Answer] = {}
        self._ended: list[Output] = []  # requests that had nothing left to sample
        self._last = EngineStats(kv_blocks=config.kv_blocks, slots=config.slots)

    def submit(self, request: GenerationRequest) -> None:
        """Queue a request; the first token comes out of one of the next steps.

        Changes nothing where it raises: JobError for resumed tokens that are no answer's beginning
        here, or do not keep to the constraint, and for an adapter that `prepare` refuses;
        ValueError for a request that passes a limit (`context`, the vocabulary), which jobs are
        held to before they come here.
        """
        use_device(self.backbone.device)
        self._check(request)
        answer = self._resume(request)
        if answer.finish is not None:
            if request.sampling.prompt_logprobs is None:
                self._ended.append(Output(request.key, finish=answer.finish))
                return
            request = replace(request, resume_ids=())  # the prompt alone is run once more
        vocab = self.backbone.vocab_size  # a job may name ids that no model has
        ends = frozenset(token for token in answer.end_ids if token < vocab)
        sequence = self._scheduler.add(request)
        sequence.end_ids = ends
        sequence.matcher = answer.matcher if answer.finish is None else None
        if request.constraint is not None:
            size = request.constraint.vocab_size
            self._sample.expect_constraints(self.config.max_rows, size, self.backbone.device)
        self._answers[request.key] = answer

    def prepare(self, adapter: AdapterWeights) -> None:
        """Do what takes long before an adapter's first request; from any thread.

        Optional: `submit` does it for an adapter that nobody has prepared. Raises JobError
        `adapter_invalid`, see `AdapterLayers.prepare`.
        """
        use_device(self.backbone.device)
        self.layers.prepare(adapter)

    def cancel(self, key: int) -> None:
        """Drop a request; unknown keys are ignored."""
        if self._scheduler.remove(key):
            del self._answers[key]
        self._ended = [output for output in self._ended if output.key != key]

    @property
    def context(self) -> int:
        """Most tokens that prompt and answer may have together: the backbone's, or the cache's."""
        held = self._scheduler.kv_tokens
        return min(held, self.backbone.max_positions or held)

    @property
    def has_work(self) -> bool:
        """Whether a step would bring something forward."""
        in_flight = self._scheduler.in_flight.plan is not None
        return bool(self._ended) or self._scheduler.has_work or in_flight

    def stats(self) -> EngineStats:
        """Return a snapshot; may be called from another thread."""
        scheduler = self._scheduler
        return replace(
            self._last,
            running=len(scheduler.running),
            waiting=len(scheduler.waiting),
            kv_blocks_used=scheduler.blocks.used,
            kv_blocks_named=scheduler.blocks.named,
            kv_blocks_reclaimed=scheduler.blocks.reclaimed,
            prefix_hits=scheduler.prefixes.hits,
            prefix_tokens=scheduler.prefixes.tokens,
            slots_used=self._slots.used,
            adapter_loads=self._slots.loads,
            in_slots=self._slots.digests,
            drafted=0 if self._speculation is None else self._speculation.drafted,
            accepted=0 if self._speculation is None else self._speculation.accepted,
        )

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Run one step: a new token for each sequence that is due, more where guesses came true.

        An output has one token at most; a sequence's come in their order.
        What fails for one sequence alone ends that one in `internal`. What it raises is the
        model's, or nobody's: the engine is of no more use.
        """
        use_device(self.backbone.device)
        outputs, self._ended = self._ended, []
        taken: list[Output] = []
        plan = self._run(partial(self._take, taken))
        outputs += self._refused()
        for output in taken:
            if output.last:
                self.cancel(output.key)
        if plan is not None:
            self._note(plan)
        return outputs + taken

    def _refused(self) -> list[Output]:
        """Tell those whose adapter could not be put into a slot."""
        refused, self._scheduler.refused = self._scheduler.refused, []
        outputs = []
        for key, reason in refused:
            error = reason
            if not isinstance(error, JobError):
                log.error("adapter_load_failed", key=key, exc_info=error)
                error = JobError(ErrorCode.INTERNAL, "adapter: it could not be loaded")
            outputs.append(Output(key, error=error))
            del self._answers[key]
        return outputs

    def _check(self, request: GenerationRequest) -> None:
        """Raise ValueError for what would fail later, in the middle of other tenants' steps."""
        if not _within(request.prompt_ids, self.backbone.vocab_size):
            raise ValueError("prompt tokens beyond the vocabulary")
        whole = len(request.prompt_ids) + request.sampling.longest
        if not 0 <= request.active_from < len(request.prompt_ids):
            raise ValueError(f"an adapter from token {request.active_from} of the prompt on")
        positions = self.backbone.max_positions
        if positions is not None and whole > positions:
            raise ValueError(f"{whole} tokens, the backbone was made for {positions}")
        members = members_of(request.adapter)
        if len(members) > self.config.slots:
            raise ValueError(
                f"{len(members)} adapters at once, there are {self.config.slots} slots"
            )
        plain = request.adapter_scale == 1 and not isinstance(request.adapter, Mixture)
        if not plain and any(member.dora for member in members):
            raise ValueError("a DoRA adapter of another strength, or in a mixture")
        for member in members:
            self.layers.prepare(member)

    def _resume(self, request: GenerationRequest) -> Answer:
        """Make the answer as far as it is visible; another worker's log says how far that is."""
        if not _within(request.resume_ids, self.backbone.vocab_size):
            raise JobError(ErrorCode.INVALID_JOB, "resumed tokens are not of this vocabulary")
        matcher = None if request.constraint is None else request.constraint.matcher()
        eos_ids = self.backbone.eos_token_ids
        prompt = request.prompt_ids if request.continues_text else ()
        answer = Answer(self._detokenizer, request.sampling, eos_ids, matcher, prompt)
        for token in request.resume_ids:
            if answer.finish == "length":  # its first owner had more room: what is visible stays
                break
            if answer.finish is not None:
                raise JobError(ErrorCode.INVALID_JOB, "resumed tokens go on past the answer's end")
            answer.push(token)
        return answer

    def _take(
        self,
        outputs: list[Output],
        sequence: TokenSequence,
        token: int,
        logprobs: TokenLogprobs | None,
    ) -> bool:
        """Turn a sampled token into an output; tell whether the answer goes on."""
        output = next_output(sequence, self._answers[sequence.key], token, logprobs)
        outputs.append(output)
        return not output.last

    def _note(self, plan: StepPlan) -> None:
        adapters = len({digest for row in plan.rows for digest in row.sequence.digests})
        self._last.step_rows.observe(len(plan.rows))
        self._last.step_adapters.observe(adapters)
        self._last = replace(
            self._last,
            rows=len(plan.rows),
            adapters=adapters,
            tokens=plan.tokens,
            steps=self._last.steps + 1,
            preemptions=self._last.preemptions + plan.preempted,
        )


def _runs_ahead(config: EngineConfig, speculation: Speculation | None) -> bool:
    """Whether steps are launched before the last one's tokens are read: not where these draft."""
    if config.run_ahead == "off" or (config.run_ahead == "auto" and config.device == "cpu"):
        return False
    if speculation is not None:
        log.warning("run_ahead_off", reason="drafts follow the last tokens: ARIL_SPECULATION")
        return False
    return True


def _within(ids: Sequence[int], vocab_size: int) -> bool:
    return not ids or (min(ids) >= 0 and max(ids) < vocab_size)

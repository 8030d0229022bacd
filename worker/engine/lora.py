"""The adapters' side of the model: every linear with slots for LoRA weights beside it."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from aril.kernels.backend import uses_triton
from aril.kernels.sgmv import GroupShape, SlotBiases, SlotCopies, make_slot_weights
from aril.schemas import ErrorCode, JobError
from aril.worker.adapters.target_parameters import ParameterShapes
from aril.worker.adapters.trained_tokens import TrainedTokens
from aril.worker.engine.adapter_block import on_device, pin
from aril.worker.engine.block_products import BLOCK_ROWS, ROW_COUNTS
from aril.worker.engine.copy_stream import CopyStream
from aril.worker.engine.dora_gains import DoraGains
from aril.worker.engine.experts import ExpertLayer
from aril.worker.engine.groups import LinearGroup, LoraLinear, StepState
from aril.worker.engine.one_copy import one_copy
from aril.worker.engine.routers import install_router
from aril.worker.engine.sample_texts import CALIBRATION
from aril.worker.engine.siblings import find_siblings, find_whole
from aril.worker.engine.smoothing import column_maxima
from aril.worker.engine.step_cost import Products
from aril.worker.engine.token_rows import DeviceRows, InputTable, OutputTable

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from torch import Tensor

    from aril.kernels.sgmv import SgmvPlan, SlotWeights
    from aril.worker.adapters import AdapterWeights
    from aril.worker.engine.config import EngineConfig
    from aril.worker.engine.copy_stream import Arrival
    from aril.worker.engine.experts import Prepared
    from aril.worker.engine.model import Backbone


class AdapterLayers:
    """Replaces the backbone's linears by groups that add each row's adapter.

    Call `begin` before each forward pass; `load` only between passes. `prepare` may be called from
    any thread.
    """

    def __init__(
        self,
        backbone: Backbone,
        config: EngineConfig,
        groups: Sequence[Sequence[str]] | None = None,
    ) -> None:
        self._backbone = backbone
        self._config = config
        self._body = StepState(invariant=config.invariant)
        self._output = StepState(invariant=config.invariant)
        self._late_slots: set[int] = set()  # whose adapters bring more than the layers' linears
        routers = backbone.parameters.routers
        holders = {path.rpartition(".")[0] for path in backbone.parameters.experts}
        whole = find_whole(backbone, (*routers, *holders)) if holders else ()
        if groups is None:
            alone = ((path,) for path in whole if path in routers)
            groups = (*find_siblings(backbone), *alone)
        self.experts = {path: self._install_experts(path) for path in whole if path in holders}
        self.groups = tuple(self._install(names) for names in groups)
        shapes = {  # (out, in) by path
            name: (width, group.in_features)
            for group in self.groups
            for name, width in zip(group.names, group.widths, strict=True)
        }
        self.shapes = {name: shape for name, shape in shapes.items() if name not in routers}
        """(out, in) of each linear that adapters can change, by module path."""
        self.parameters = ParameterShapes(
            experts={
                path: shape
                for path, shape in backbone.parameters.experts.items()
                if path.rpartition(".")[0] in self.experts
            },
            routers={name: shape for name, shape in shapes.items() if name in routers},
        )
        """What of experts and routers they can change."""
        model = backbone.model
        self._tables = (
            InputTable(model.get_input_embeddings(), self._body),
            OutputTable(model.get_output_embeddings(), self._output),
        )
        self._copies = CopyStream.of(backbone.device)
        self._gains = DoraGains()

    def recordable(self, slots: Iterable[int]) -> bool:
        """Whether rows of these slots need nothing but what a recorded step has.

        Their adapters change the layers' linears alone: not the output module, whose product is as
        wide as the vocabulary, nor experts, and they have no biases or tokens' vectors. What others
        bring of these changes no bit of their rows.
        """
        return self._late_slots.isdisjoint(slots)

    def pack(self) -> None:
        """Lay the base weights out for speed, or in eight bits, and hold nothing of them twice.

        In eight bits are the linears of the layers. The output module and routers, whose small
        differences decide, stay as they are stored, and so do experts.

        Weights that are served in their file's type lie in a map of the whole file, which stays in
        memory as long as one of them does. Such memory cannot be resized; torch says no more of it.
        """
        maxima = self._column_maxima() if self._config.weights == "int8" else {}
        self._body.changes += 1
        for group in self.groups:
            group.pack(self._config.backend, maxima.get(group.names))
        for module in self._backbone.model.modules():
            if not isinstance(module, LoraLinear):
                for parameter in module.parameters(recurse=False):
                    if parameter.is_cpu and not parameter.untyped_storage().resizable():
                        parameter.data = parameter.data.clone()

    def in_eight_bits(self, group: LinearGroup) -> bool:
        """Whether `ARIL_WEIGHTS=int8` means this group."""
        kept = {self._backbone.output_module, *self._backbone.parameters.routers}
        return kept.isdisjoint(group.names)

    def _column_maxima(self) -> dict[tuple[str, ...], Tensor]:
        """Return what each group that is to be in eight bits needs to know of its rows."""
        groups = [group for group in self.groups if self.in_eight_bits(group)]
        firsts = [group.members[0] for group in groups]
        maxima = column_maxima(self._backbone, firsts, CALIBRATION)
        return {group.names: each for group, each in zip(groups, maxima, strict=True)}

    def find_row_counts(self) -> None:
        """Let each linear work in the row counts that keep a row's bits, beside those of a block.

        Linears of one kind are asked once. The output module makes logits of a row each.
        """
        found: dict[Hashable, tuple[int, ...] | None] = {}
        for group in self.groups:
            output = group.names == (self._backbone.output_module,)
            largest = self._config.max_rows if output else self._config.max_step_tokens
            asked = tuple(count for count in ROW_COUNTS if count <= max(largest, BLOCK_ROWS))
            kind = group.kind, asked
            if kind not in found:
                found[kind] = group.find_row_counts(asked)
            group.row_counts = found[kind]

    @property
    def products(self) -> tuple[Products, ...]:
        """The linears by the row counts of their products, as they are now."""
        weights: dict[tuple[tuple[int, ...] | None, bool], int] = {}
        for group in self.groups:
            kind = group.row_counts, group.names == (self._backbone.output_module,)
            weights[kind] = weights.get(kind, 0) + group.weight.numel()
        return tuple(
            Products(count, row_counts, logits) for (row_counts, logits), count in weights.items()
        )

    def begin(self, plans: Sequence[SgmvPlan], output_plans: Sequence[SgmvPlan]) -> None:
        """Start a step: the adapters of all its rows, and of those whose logits are computed.

        See `StepState.plans`.
        """
        # Where nobody changes the logits, kernels over the vocabulary need not be launched.
        self._body.plans = tuple(plans)
        self._output.plans = tuple(output_plans) if self._late_slots else ()
        for group in self.groups:
            group.forget()

    def prepare(self, adapter: AdapterWeights) -> None:
        """Compute what DoRA needs of the backbone's weights; put it where a GPU can fetch it.

        The gains are remembered with the adapter's modules, so that `load` only copies. Raises
        JobError `adapter_invalid` for a changed weight that has a row of zeros. That the adapter
        fits `shapes` is its reader's business: ValueError where it does not.
        """
        unknown = adapter.modules.keys() - self.shapes.keys() - self.parameters.routers.keys()
        if unknown:
            raise ValueError(f"no linear {min(unknown)!r} takes adapters")
        if unknown := adapter.experts.keys() - self.parameters.experts.keys():
            raise ValueError(f"no experts {min(unknown)!r} take adapters")
        self._gains.prepare(adapter, self.groups)
        if self._copies is not None:
            pin(adapter)

    def load(self, slot: int, adapter: AdapterWeights) -> Arrival | None:
        """Put an adapter into a slot, in place of all that was there.

        Returns what tells when it is there; None where it is: on a CPU. On a GPU no step waits for
        it but those with rows of the slot, which are nobody's until then. Linears that the adapter
        leaves alone get rank 0. Raises what `prepare` raises, and JobError `overloaded` where there
        is no memory for the first adapter of the output module, or with biases, for tokens' vectors
        or for experts, before anything has changed.
        """
        self.prepare(adapter)
        self._take_room(adapter)  # every step's own from now on: it is made before, not beside
        if self._copies is None:
            self._put(slot, adapter, adapter)
            return None
        with self._copies.copying() as arrival:
            with _room_needed():
                there = on_device(adapter, self._backbone.device)
            self._put(slot, adapter, there)
        return arrival

    def _put(self, slot: int, adapter: AdapterWeights, there: AdapterWeights) -> None:
        """Fill a slot from `there`, which is the adapter, or a copy of it on the device."""
        self._body.changes += 1
        token_rows, experts = self._late_memory(there)
        self._late_slots.discard(slot)
        if (
            self._backbone.output_module in adapter.modules
            or any(each.bias is not None for each in adapter.modules.values())
            or any(experts.values())
            or any(rows is not None for rows in token_rows)
        ):
            self._late_slots.add(slot)
        for table, rows in zip(self._tables, token_rows, strict=True):
            table.put(slot, rows)
        for path, layer in self.experts.items():
            layer.put(slot, experts[path])
        copies = SlotCopies(partial(one_copy, device=self._backbone.device))
        for group in self.groups:
            pairs = [
                self._gains.pair(adapter.modules[name], there.modules[name])
                if name in adapter.modules
                else None
                for name in group.names
            ]
            if group.biases is not None:
                group.biases.load(slot, pairs)
            if any(pairs):
                self._weights(group).load(slot, pairs, copies)
            elif group.weights is not None:
                group.weights.clear(slot, copies)
        copies.run()

    def _take_room(self, adapter: AdapterWeights) -> None:
        """Take the memory of all slots that is taken when the first adapter needs it."""
        self._body.changes += 1
        with _room_needed():
            for group in self.groups:
                modules = [adapter.modules[name] for name in group.names if name in adapter.modules]
                if modules:
                    self._weights(group)
                if any(module.bias is not None for module in modules) and group.biases is None:
                    group.biases = self._biases(group)

    def _late_memory(
        self, adapter: AdapterWeights
    ) -> tuple[list[DeviceRows | None], dict[str, Prepared]]:
        """Take the memory that is an adapter's own.

        Returns its tokens' vectors, and what it brings for each layer's experts.
        """
        tokens = adapter.tokens or TrainedTokens()
        device, dtype = self._backbone.device, self._backbone.dtype
        with _room_needed():
            experts = {path: layer.prepare(adapter.experts) for path, layer in self.experts.items()}
            both = tokens.input, tokens.output
            return [DeviceRows.of(rows, device, dtype) for rows in both], experts

    def _install(self, names: Sequence[str]) -> LinearGroup:
        model = self._backbone.model
        if names[0] in self._backbone.parameters.routers:
            router = install_router(names[0], model.get_submodule(names[0]), self._body)
            self._weights(router)
            return router
        linears = [model.get_submodule(name) for name in names]
        output = tuple(names) == (self._backbone.output_module,)
        group = LinearGroup(names, linears, self._output if output else self._body)
        for name, member in zip(names, group.members, strict=True):
            model.set_submodule(name, member)
        # Few adapters change the output module. Where each has memory of its own it costs none
        # before; where slots are of one size it is there from the start, a twentieth of them for a
        # model of 8B, since later the cache has what was free.
        if not output or uses_triton(self._config.backend, self._backbone.device):
            self._weights(group)
        return group

    def _install_experts(self, path: str) -> ExpertLayer:
        return ExpertLayer(
            path,
            self._backbone.model.get_submodule(path),
            self._body,
            slots=self._config.slots,
            backend=self._config.backend,
        )

    def _biases(self, group: LinearGroup) -> SlotBiases:
        return SlotBiases(
            GroupShape(group.in_features, group.widths, self._config.max_rank),
            self._config.slots,
            device=self._backbone.device,
            dtype=self._backbone.dtype,
        )

    def _weights(self, group: LinearGroup) -> SlotWeights:
        if group.weights is None:
            group.weights = make_slot_weights(
                GroupShape(group.in_features, group.widths, self._config.max_rank),
                self._config.slots,
                device=self._backbone.device,
                dtype=self._backbone.dtype,
                bias=group.bias,
                backend=self._config.backend,
            )
        return group.weights


@contextmanager
def _room_needed() -> Iterator[None]:
    """Say `overloaded` where memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch says both in the same way
        raise JobError(
            ErrorCode.OVERLOADED,
            "adapter: no memory for one of the output layer, biases, tokens or experts",
        ) from error

"""What an engine is allowed to use: rows, tokens, slots, cache and device."""

from dataclasses import dataclass
from typing import Literal

import torch

Backend = Literal["auto", "native", "torch", "triton"]
Weights = Literal["stored", "int8"]
Graphs = Literal["auto", "on", "off"]
RunAhead = Literal["auto", "on", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Limits and placement of one engine; every buffer is sized from these numbers.

    Raises ValueError at construction for limits that no step could be planned under.
    """

    max_rows: int  # sequences in one step
    max_step_tokens: int  # tokens in one step, prefill and decode together
    slots: int  # adapters resident on the device at once
    max_rank: int
    # Tokens whose keys and values the cache holds, rounded down to whole blocks; 0: see kv_room.py.
    kv_tokens: int
    kv_block: int = 16
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    weights: Weights = "stored"  # of the backbone's linears
    backend: Backend = "auto"
    invariant: bool = False  # a row's bits do not depend on the rows beside it
    graphs: Graphs = "off"  # whether decode steps are captured at start and replayed
    run_ahead: RunAhead = "off"  # whether a step is launched while the one before runs
    # How many times as long as a decode of all jobs a step on a CPU with prompts may last.
    step_stretch: float = 2.0
    prefix_cache: bool = True  # what was computed of a sequence is found by others of its beginning
    speculation: int = 0  # most tokens that are drafted for a row in one step; 0: none

    def __post_init__(self) -> None:
        for name in ("max_rows", "max_step_tokens", "slots", "max_rank", "kv_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.max_step_tokens < self.max_rows:
            raise ValueError(
                f"max_step_tokens ({self.max_step_tokens}) must be at least max_rows "
                f"({self.max_rows}): every running row decodes one token a step"
            )
        if self.step_stretch < 1:
            raise ValueError(f"step_stretch must be at least 1, got {self.step_stretch}")
        if self.speculation < 0:
            raise ValueError(f"speculation must not be negative, got {self.speculation}")
        if self.graphs == "on" and self.speculation:
            raise ValueError("graphs replay steps of one token a row: no speculation beside them")
        if self.graphs == "on" and not self.device.startswith("cuda"):
            raise ValueError(f"graphs need a CUDA device, got {self.device}")
        if self.kv_tokens and self.kv_tokens < self.kv_block:
            raise ValueError(
                f"kv_tokens ({self.kv_tokens}) must hold at least one block of {self.kv_block}"
            )

    @property
    def kv_blocks(self) -> int:
        """Whole blocks in the cache."""
        return self.kv_tokens // self.kv_block

"""An engine that is run by hand, until its requests are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aril.worker.engine.engine import Engine
    from aril.worker.engine.request import GenerationRequest, Output


def finish(engine: Engine, *requests: GenerationRequest) -> dict[int, list[Output]]:
    """Submit, run until nothing is left, and return the outputs by key."""
    outputs: dict[int, list[Output]] = {request.key: [] for request in requests}
    for request in requests:
        engine.submit(request)
    while engine.has_work:
        for output in engine.step():
            outputs[output.key].append(output)
    return outputs

"""Rules that nest deeper than a usual thread's stack do not end the process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aril.schemas import limits
from aril.worker.constraints.cache import ConstraintCache
from aril.worker.observe.metrics import Metrics
from tests.support.constrained import of_schema

if TYPE_CHECKING:
    from aril.worker.constraints.compiler import ConstraintCompiler

REFERENCES = 1_600  # the engine overflows a stack of 8 MiB


async def test_a_long_chain_of_references_is_compiled(compiler: ConstraintCompiler) -> None:
    """It fits into the bounds of a schema, so the thread that compiles has a stack for it."""
    chain: dict[str, Any] = {
        f"{at}": {"items": {"$ref": f"#/$defs/{at + 1}"}} for at in range(REFERENCES)
    }
    chain[f"{REFERENCES}"] = {"type": "string"}
    form = of_schema("s", {"$defs": chain, "$ref": "#/$defs/0"}, text=True)
    constraint = form.sampling().constraint
    assert constraint is not None
    assert len(constraint.text) < limits.MAX_SCHEMA_BYTES
    kept = ConstraintCache(compiler, Metrics())
    assert not (await kept.get("acme", constraint)).matcher().complete
    kept._thread.shutdown()  # the compiler is other tests' as well

"""What a job may ask of adapters: one, as strong as it likes, or several at once."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field
from pydantic_core import PydanticCustomError

from aril.schemas import limits, names
from aril.schemas.strictness import CONFIG


def not_shared(name: str) -> str:
    """Refuse the name that is reserved."""
    if name.partition("@")[0] == names.SHARED:
        raise PydanticCustomError("reserved_name", "the name 'shared' is reserved")
    return name


Adapter = Annotated[
    str,
    Field(
        pattern=names.ADAPTER_PATTERN,
        json_schema_extra={"not": {"pattern": f"^{names.SHARED}(@|$)"}},
    ),
    AfterValidator(not_shared),
]
AdapterScale = Annotated[
    float,
    Field(
        ge=0,
        le=limits.MAX_ADAPTER_SCALE,
        description="what the adapter adds is multiplied by it; goes with adapter or adapters",
    ),
]


class WeightedAdapter(BaseModel):
    """One adapter of a mixture, and what all that it adds is multiplied by."""

    model_config = CONFIG

    name: Adapter
    weight: Annotated[
        float,
        Field(
            ge=-limits.MAX_ABSOLUTE_MIXTURE_WEIGHT,
            le=limits.MAX_ABSOLUTE_MIXTURE_WEIGHT,
        ),
    ] = 1.0


WeightedAdapters = Annotated[
    tuple[WeightedAdapter, ...],
    Field(strict=False, fail_fast=True, min_length=1, max_length=limits.MAX_MIXED_ADAPTERS),
]

"""How all requests are read: strictly, and so that no error and no repr holds what was read.

A number in a string is refused, not converted. Unknown fields are ignored, unless the job says that
it is `strict`.
"""

from typing import Annotated, Final

from pydantic import ConfigDict, Field

from aril.schemas import limits

CONFIG: Final = ConfigDict(
    strict=True,
    frozen=True,
    extra="ignore",
    allow_inf_nan=False,
    hide_input_in_errors=True,
)
TokenId = Annotated[int, Field(ge=0, le=limits.MAX_TOKEN_ID)]

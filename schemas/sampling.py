"""How tokens are chosen, and when an answer ends."""

import json
from typing import Annotated, Self

from pydantic import BaseModel, Field, model_validator
from pydantic_core import PydanticCustomError

from aril.schemas import limits
from aril.schemas.constraint import Choice, Constraint, Grammar, Regex, ResponseFormat
from aril.schemas.strictness import CONFIG, TokenId

StopString = Annotated[str, Field(min_length=1, max_length=limits.MAX_STOP_CHARS)]
# `strict=False` on a tuple lets it be given as a list; its elements stay strict.
StopStrings = Annotated[
    tuple[StopString, ...], Field(strict=False, fail_fast=True, max_length=limits.MAX_STOP_STRINGS)
]
StopTokenIds = Annotated[
    tuple[TokenId, ...], Field(strict=False, fail_fast=True, max_length=limits.MAX_STOP_TOKEN_IDS)
]
Penalty = Annotated[float, Field(ge=-limits.MAX_ABSOLUTE_PENALTY, le=limits.MAX_ABSOLUTE_PENALTY)]
LogitBias = Annotated[
    dict[
        Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,9})$")],
        Annotated[
            float, Field(ge=-limits.MAX_ABSOLUTE_LOGIT_BIAS, le=limits.MAX_ABSOLUTE_LOGIT_BIAS)
        ],
    ],
    Field(max_length=limits.MAX_LOGIT_BIASES),
]


class Sampling(BaseModel):
    """How tokens are chosen; names, ranges and defaults as in the OpenAI interface and vLLM."""

    model_config = CONFIG

    max_tokens: Annotated[
        int | None,
        Field(
            ge=1,
            le=limits.MAX_MAX_TOKENS,
            description="nil: to the end of the context, or the most that the service allows",
        ),
    ] = None
    min_tokens: Annotated[
        int,
        Field(ge=0, le=limits.MAX_MAX_TOKENS, description="before them nothing ends the answer"),
    ] = 0
    temperature: Annotated[
        float, Field(ge=0, le=limits.MAX_TEMPERATURE, description="0 is greedy")
    ] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0, le=limits.MAX_TOP_K, description="0 is off")] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    repetition_penalty: Annotated[
        float, Field(ge=limits.MIN_REPETITION_PENALTY, le=limits.MAX_REPETITION_PENALTY)
    ] = 1.0
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    seed: Annotated[
        int | None,
        Field(ge=0, le=limits.MAX_SEED, description="nil: one is drawn and told in the terminal"),
    ] = None
    stop: StopStrings = ()
    stop_token_ids: StopTokenIds = ()
    ignore_eos: bool = False
    logit_bias: Annotated[
        LogitBias, Field(description="token id in decimal: what is added to its logit")
    ] = {}
    n: Annotated[int, Field(ge=1, le=1, description="one answer a job; send it again")] = 1
    best_of: Annotated[int, Field(ge=1, le=1, description="as n")] = 1
    logprobs: Annotated[
        int | None,
        Field(
            ge=0,
            le=limits.MAX_LOGPROBS,
            description="nil: none; n: the chosen token's and the n most likely ones'",
        ),
    ] = None

    prompt_logprobs: Annotated[
        int | None,
        Field(
            ge=0,
            le=limits.MAX_LOGPROBS,
            description="nil: none; n: each prompt token's and the n most likely ones', in the "
            "terminal",
        ),
    ] = None
    response_format: ResponseFormat | None = None
    regex: Annotated[
        Regex | None, Field(repr=False, description="all of the answer matches it")
    ] = None
    choice: Annotated[
        Choice | None, Field(repr=False, description="the answer is one of these")
    ] = None
    grammar: Annotated[
        Grammar | None, Field(repr=False, description="the answer's grammar, in Lark")
    ] = None

    @model_validator(mode="after")
    def _can_be_long_enough(self) -> Self:
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise PydanticCustomError("min_over_max", "min_tokens: more than max_tokens")
        return self

    @model_validator(mode="after")
    def _one_constraint(self) -> Self:
        form = self.response_format
        given = [self.regex, self.choice, self.grammar, form if form and form.asks else None]
        if given.count(None) < len(given) - 1:
            raise PydanticCustomError(
                "one_constraint", "at most one of response_format, regex, choice, grammar"
            )
        return self

    @property
    def constraint(self) -> Constraint | None:
        """What the answer has to look like; None where any text will do."""
        if self.regex is not None:
            return Constraint("regex", self.regex, "regex")
        if self.choice is not None:
            return Constraint("choice", json.dumps(self.choice, ensure_ascii=False), "choice")
        if self.grammar is not None:
            return Constraint("grammar", self.grammar, "grammar")
        return None if self.response_format is None else self.response_format.constraint

    @property
    def longest(self) -> int:
        """The most tokens that the answer may have by this alone."""
        return limits.MAX_MAX_TOKENS if self.max_tokens is None else self.max_tokens

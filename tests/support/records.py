"""Hypothesis strategies for the records of the wire contract."""

from typing import Any

from hypothesis import strategies as st

from aril.schemas import (
    Activation,
    Cancel,
    ClaimRecord,
    DoneRecord,
    Epoch,
    ErrorCode,
    ErrorRecord,
    Job,
    Message,
    MixedAdapter,
    PromptLogprobs,
    ReleaseRecord,
    ReplyRecord,
    Sampling,
    Timings,
    TokenLogprobs,
    TokensRecord,
    Usage,
    WeightedAdapter,
    limits,
)
from aril.schemas.conversation import TextPart

# Small alphabets with awkward members: quick to shrink, and every UTF-8 length occurs.
TEXT = st.text(st.sampled_from("a \x00é€🍎\u2028"), max_size=12)
NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True).filter(lambda n: n != "shared")
JOB_IDS = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
WORKERS = st.from_regex(r"[A-Za-z0-9._:-]{1,20}", fullmatch=True)
TOKEN_IDS = st.integers(0, limits.MAX_TOKEN_ID)
COUNTS = st.integers(0, limits.MAX_INDEX)
REALS = st.floats(allow_nan=False, allow_infinity=False)
METADATA = st.dictionaries(TEXT, TEXT, max_size=3)
EPOCHS = st.builds(
    Epoch, st.integers(0, limits.MAX_EPOCH_PART), st.integers(1, limits.MAX_EPOCH_PART)
)
_CONTENT = TEXT | st.lists(st.builds(TextPart, type=st.just("text"), text=TEXT), max_size=2)
_TOOLS = st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2)
TURNS = st.one_of(
    st.builds(Message, role=st.sampled_from(["system", "user", "tool"]), content=_CONTENT),
    st.builds(
        Message,
        role=st.just("assistant"),
        content=st.none() | _CONTENT,
        tool_calls=st.none() | _TOOLS,
    ),
)
CONSTRAINTS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {},
        {"response_format": {"type": "text"}, "regex": "[a-z]+"},
        {"response_format": {"type": "json_object"}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "integer"}, "strict": True},
            }
        },
        {"response_format": {"type": "json_schema", "json_schema": {"schema": "{}"}}},
        {"choice": ["a", "🍎"]},
        {"grammar": 'start: "a"'},
    ]
)


def _sampling(constraint: dict[str, Any], **fields: Any) -> Sampling:
    return Sampling(**constraint, **fields)


SAMPLING = st.builds(
    _sampling,
    CONSTRAINTS,
    max_tokens=st.none() | st.integers(1, limits.MAX_MAX_TOKENS),
    temperature=st.floats(0, 2),
    top_p=st.floats(0, 1, exclude_min=True),
    top_k=st.integers(0, limits.MAX_TOP_K),
    min_p=st.floats(0, 1),
    repetition_penalty=st.floats(0.1, 10),
    presence_penalty=st.floats(-2, 2),
    frequency_penalty=st.floats(-2, 2),
    seed=st.none() | st.integers(0, limits.MAX_SEED),
    stop=st.lists(TEXT.filter(bool), max_size=4),
    stop_token_ids=st.lists(TOKEN_IDS, max_size=4),
    ignore_eos=st.booleans(),
    logit_bias=st.dictionaries(TOKEN_IDS.map(str), st.floats(-100, 100), max_size=3),
    logprobs=st.none() | st.integers(0, limits.MAX_LOGPROBS),
    prompt_logprobs=st.none() | st.integers(0, limits.MAX_LOGPROBS),
)
PROMPTS: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"prompt": TEXT.filter(bool)}),
    st.fixed_dictionaries(
        {"messages": st.lists(TURNS, min_size=1, max_size=3)},
        optional={
            "tools": st.none() | _TOOLS,
            "add_generation_prompt": st.booleans(),
            "continue_final_message": st.booleans(),
            "chat_template_kwargs": st.dictionaries(st.sampled_from(["a", "bC_9"]), TEXT),
        },
    ),
    st.fixed_dictionaries({"token_ids": st.lists(TOKEN_IDS, min_size=1, max_size=5)}),
)
ADAPTERS = NAMES | st.tuples(NAMES, st.from_regex(r"[0-9a-f]{64}", fullmatch=True)).map("@".join)

_SCALE = st.floats(0, limits.MAX_ADAPTER_SCALE)
_WEIGHTS = st.floats(-limits.MAX_ABSOLUTE_MIXTURE_WEIGHT, limits.MAX_ABSOLUTE_MIXTURE_WEIGHT)
_MIXTURES = st.lists(
    st.builds(WeightedAdapter, name=ADAPTERS, weight=_WEIGHTS),
    min_size=1,
    max_size=limits.MAX_MIXED_ADAPTERS,
)
_ADAPTERS_OF_A_JOB: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({}, optional={"adapter": st.none()}),
    st.fixed_dictionaries({"adapter": ADAPTERS}, optional={"adapter_scale": _SCALE}),
    st.fixed_dictionaries({"adapters": _MIXTURES}, optional={"adapter_scale": _SCALE}),
)


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Any valid job."""
    fields: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
        {"id": JOB_IDS, "tenant": NAMES},
        optional={
            "sampling": SAMPLING,
            "priority": st.integers(-limits.MAX_ABSOLUTE_PRIORITY, limits.MAX_ABSOLUTE_PRIORITY),
            "deadline_ms": st.none() | st.integers(1, limits.MAX_DEADLINE_MS),
            "reply_partition": st.none() | st.integers(0, limits.MAX_PARTITION),
            "reply_from": st.none() | st.integers(0, limits.MAX_OFFSET),
            "metadata": METADATA,
            "strict": st.booleans(),
        },
    )
    return Job(**draw(fields), **draw(PROMPTS), **draw(_ADAPTERS_OF_A_JOB))


REQUESTS: st.SearchStrategy[Job | Cancel] = jobs() | st.builds(Cancel, id=JOB_IDS, tenant=NAMES)

_HEAD: dict[str, Any] = {"job": JOB_IDS, "epoch": EPOCHS, "worker": WORKERS}
_LOGPROBS = st.builds(
    TokenLogprobs, REALS, st.lists(st.tuples(TOKEN_IDS, REALS), max_size=3).map(tuple)
)


@st.composite
def tokens_records(draw: st.DrawFn) -> TokensRecord:
    """Any valid tokens record."""
    ids = draw(st.lists(TOKEN_IDS, min_size=1, max_size=5))
    rows = st.lists(_LOGPROBS, min_size=len(ids), max_size=len(ids)).map(tuple)
    head = {name: draw(strategy) for name, strategy in _HEAD.items()}
    return TokensRecord(
        **head,
        index=draw(COUNTS),
        ids=tuple(ids),
        text=draw(TEXT),
        logprobs=draw(st.none() | rows),
        base_digest=draw(st.none() | TEXT),
    )


@st.composite
def prompt_logprobs(draw: st.DrawFn) -> PromptLogprobs:
    """Any valid rows of a prompt: all of one length."""
    top = draw(st.integers(0, 3))
    pairs = st.lists(st.tuples(TOKEN_IDS, REALS), min_size=top, max_size=top).map(tuple)
    return (None, *draw(st.lists(st.builds(TokenLogprobs, REALS, pairs), max_size=3)))


_MILLISECONDS = st.floats(0, 1e12)
_DONE = st.builds(
    DoneRecord,
    **_HEAD,
    index=COUNTS,
    text=TEXT,
    finish_reason=st.sampled_from(["stop", "length"]),
    usage=st.builds(Usage, COUNTS, COUNTS),
    adapter=st.none() | NAMES,
    digest=st.none() | TEXT,
    activation=st.none() | st.builds(Activation, st.none() | COUNTS),
    adapters=st.lists(st.builds(MixedAdapter, TEXT, TEXT, REALS), max_size=4).map(tuple),
    base=TEXT,
    base_digest=st.none() | TEXT,
    earlier_bases=st.lists(TEXT, max_size=3).map(tuple),
    seed=st.integers(0, limits.MAX_SEED),
    timings=st.builds(Timings, _MILLISECONDS, _MILLISECONDS, _MILLISECONDS),
    prompt_logprobs=st.none() | prompt_logprobs(),
    metadata=METADATA,
)
_ERRORS = st.builds(
    ErrorRecord,
    **_HEAD,
    index=COUNTS,
    code=st.sampled_from(ErrorCode),
    message=TEXT,
    retryable=st.booleans(),
    limit=st.none() | REALS | st.integers(-(2**63), 2**63),
    given=st.none() | REALS | TEXT,
    metadata=METADATA,
)
REPLIES: st.SearchStrategy[ReplyRecord] = st.one_of(
    st.builds(ClaimRecord, **_HEAD, base_digest=st.none() | TEXT),
    st.builds(ReleaseRecord, **_HEAD),
    tokens_records(),
    _DONE,
    _ERRORS,
)

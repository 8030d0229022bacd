"""Well-formed maps that are no valid request."""

from aril.schemas.make_vectors.build import (
    JOB,
    MISSING,
    OWNER,
    Fields,
    Vector,
    pack,
    refusal,
    vector,
)


def _refused(name: str, meaning: str, fields: Fields, expect: Fields) -> Vector:
    return vector(name, meaning, pack(JOB | fields), expect)


def bad_fields() -> list[Vector]:
    """Bad, but whose job it is can be told: answered with an error record."""

    def invalid(reason: str, **known: float) -> Fields:
        return refusal("invalid_job", reason, **OWNER, **known)

    def too_much(reason: str, limit: float, given: float) -> Fields:
        return refusal("limit_exceeded", reason, **OWNER, limit=limit, given=given)

    def sampling(name: str, meaning: str, fields: object, expect: Fields) -> Vector:
        return _refused(name, meaning, {"sampling": fields}, expect)

    version = refusal("unsupported_version", "unsupported_version", **OWNER)
    return [
        _refused("version 2", "Another version.", {"v": 2}, version),
        _refused("version true", "A boolean is not the number 1.", {"v": True}, version),
        _refused("no version", "`v` is required.", {"v": MISSING}, version),
        _refused(
            "no prompt", "One of three is required.", {"prompt": MISSING}, invalid("one_prompt")
        ),
        _refused("two prompts", "Only one of three.", {"token_ids": [1]}, invalid("one_prompt")),
        _refused(
            "empty prompt",
            "At least a character.",
            {"prompt": ""},
            invalid("string_too_short", limit=1, given=0),
        ),
        _refused("prompt of bytes", "bin is not str.", {"prompt": b"Hi"}, invalid("string_type")),
        _refused("number in text", "Nothing is converted.", {"priority": "1"}, invalid("int_type")),
        _refused(
            "boolean for a number", "Nothing is converted.", {"priority": True}, invalid("int_type")
        ),
        _refused(
            "real for a whole number",
            "1.0 is no integer.",
            {"deadline_ms": 1.0},
            invalid("int_type"),
        ),
        _refused(
            "unknown role",
            "Four roles exist.",
            {"prompt": MISSING, "messages": [{"role": "owner", "content": "x"}]},
            invalid("literal_error"),
        ),
        _refused(
            "adapter as a path",
            "Names cannot leave a folder.",
            {"adapter": "../acme/x"},
            invalid("string_pattern_mismatch"),
        ),
        _refused(
            "adapter named shared",
            "The name is reserved.",
            {"adapter": "shared"},
            invalid("reserved_name"),
        ),
        _refused(
            "adapter and adapters",
            "Only one of both.",
            {"adapter": "pirate", "adapters": [{"name": "terse"}]},
            invalid("two_adapters"),
        ),
        _refused(
            "no adapter in a mixture",
            "At least one.",
            {"adapters": []},
            invalid("too_short", limit=1, given=0),
        ),
        _refused(
            "five adapters",
            "Four at most.",
            {"adapters": [{"name": name} for name in "abcde"]},
            too_much("too_long", 4, 5),
        ),
        _refused(
            "a weight that is no number",
            "Weights are finite.",
            {"adapters": [{"name": "terse", "weight": float("nan")}]},
            invalid("finite_number"),
        ),
        _refused(
            "a weight too large",
            "4 at most, and -4 at least.",
            {"adapters": [{"name": "terse", "weight": 4.5}]},
            too_much("less_than_equal", 4, 4.5),
        ),
        _refused(
            "an adapter too strong",
            "4 at most.",
            {"adapter": "pirate", "adapter_scale": 5},
            too_much("less_than_equal", 4, 5),
        ),
        _refused(
            "strength without an adapter",
            "There is nothing to be strong.",
            {"adapter_scale": 0.5},
            invalid("no_adapter"),
        ),
        _refused(
            "metadata value not text",
            "Text to text.",
            {"metadata": {"a": 1}},
            invalid("string_type"),
        ),
        _refused(
            "strict with a field that is none",
            "A misspelt field is told by name.",
            {"strict": True, "sampling": {"max_token": 8}},
            invalid("extra_forbidden"),
        ),
        _refused(
            "tools without messages",
            "They are for the chat template.",
            {"tools": [{"type": "function"}]},
            invalid("no_messages"),
        ),
        _refused(
            "a tool with a value that JSON lacks",
            "Templates write tools as JSON: no bytes, no infinite number.",
            {
                "prompt": MISSING,
                "messages": [{"role": "user", "content": "Hi"}],
                "tools": [{"type": "function", "limit": float("inf")}],
            },
            invalid("no_json"),
        ),
        _refused(
            "a user's turn without content",
            "Only an assistant's may be without.",
            {"prompt": MISSING, "messages": [{"role": "user", "content": None}]},
            invalid("no_content"),
        ),
        _refused(
            "a part that is no text",
            "Backbones here read text.",
            {
                "prompt": MISSING,
                "messages": [{"role": "user", "content": [{"type": "image_url"}]}],
            },
            invalid("literal_error"),
        ),
        sampling(
            "two answers",
            "One a job; the job may be sent again under another id.",
            {"n": 2},
            too_much("less_than_equal", 1, 2),
        ),
        sampling(
            "two forms for the answer",
            "At most one of response_format, regex, choice, grammar.",
            {"response_format": {"type": "json_object"}, "regex": "a*"},
            invalid("one_constraint"),
        ),
        sampling(
            "a form that is none",
            "text, json_object or json_schema.",
            {"response_format": {"type": "xml"}},
            invalid("literal_error"),
        ),
        sampling(
            "a schema that is not there",
            "It goes with its type, and with no other.",
            {"response_format": {"type": "json_schema"}},
            invalid("schema_and_type"),
        ),
        sampling(
            "a schema that is no map",
            "A map, or its JSON as text.",
            {"response_format": {"type": "json_schema", "json_schema": {"schema": [1]}}},
            invalid("schema_type"),
        ),
        sampling(
            "nothing to choose from",
            "One at least.",
            {"choice": []},
            invalid("too_short", limit=1, given=0),
        ),
        sampling(
            "regular expression too long",
            "8,192 characters at most.",
            {"regex": "a" * 8_193},
            too_much("string_too_long", 8_192, 8_193),
        ),
        sampling(
            "at least more than at most",
            "An answer cannot be both.",
            {"max_tokens": 3, "min_tokens": 4},
            invalid("min_over_max"),
        ),
        _refused(
            "template variables too long",
            "16,384 characters together.",
            {
                "prompt": MISSING,
                "messages": [{"role": "user", "content": "Hi"}],
                "chat_template_kwargs": {"a": "x" * 16_384},
            },
            too_much("messages_too_long", 16_384, 16_385),
        ),
        sampling(
            "prompt logprobs 21",
            "20 at most.",
            {"prompt_logprobs": 21},
            too_much("less_than_equal", 20, 21),
        ),
        sampling(
            "bias of a token that is no number",
            "Ids are written in decimal.",
            {"logit_bias": {"the": 1.0}},
            invalid("string_pattern_mismatch"),
        ),
        sampling(
            "bias too strong",
            "100 at most.",
            {"logit_bias": {"7": 100.5}},
            too_much("less_than_equal", 100, 100.5),
        ),
        sampling("sampling not a map", "A map is required.", [1], invalid("model_type")),
        sampling(
            "one stop string, bare", "An array is required.", {"stop": "END"}, invalid("tuple_type")
        ),
        sampling(
            "temperature nan",
            "NaN is no temperature.",
            {"temperature": float("nan")},
            invalid("finite_number"),
        ),
        sampling(
            "temperature infinite",
            "Nor is infinity.",
            {"temperature": float("inf")},
            invalid("finite_number"),
        ),
        sampling(
            "temperature negative",
            "At least 0.",
            {"temperature": -1},
            invalid("greater_than_equal", limit=0, given=-1),
        ),
        sampling(
            "top_p zero", "More than 0.", {"top_p": 0.0}, invalid("greater_than", limit=0, given=0)
        ),
        sampling(
            "repetition penalty too small",
            "0.1 at least: what is divided by less may overflow.",
            {"repetition_penalty": 0.0625},
            invalid("greater_than_equal", limit=0.1, given=0.0625),
        ),
        sampling(
            "max_tokens too large",
            "131,072 at most.",
            {"max_tokens": 131_073},
            too_much("less_than_equal", 131_072, 131_073),
        ),
        sampling(
            "too many stop strings",
            "16 at most.",
            {"stop": ["x"] * 17},
            too_much("too_long", 16, 17),
        ),
        sampling(
            "stop string too long",
            "256 characters at most.",
            {"stop": ["x" * 257]},
            too_much("string_too_long", 256, 257),
        ),
        _refused(
            "too much metadata",
            "16 entries at most.",
            {"metadata": {f"k{n}": "" for n in range(17)}},
            too_much("too_long", 16, 17),
        ),
    ]


def bad_owners() -> list[Vector]:
    """Nobody can be told: the record can only be put aside."""

    def nobody(reason: str, **known: str) -> Fields:
        return refusal("invalid_job", reason, **(OWNER | {"tenant": None} | known))

    return [
        _refused(
            "tenant as a path",
            "No dots, no slashes.",
            {"tenant": "../acme"},
            nobody("string_pattern_mismatch"),
        ),
        _refused(
            "tenant as a topic trick",
            "No dots: not another topic.",
            {"tenant": "acme.replies"},
            nobody("string_pattern_mismatch"),
        ),
        _refused(
            "tenant with a line end",
            "The pattern covers all of it.",
            {"tenant": "acme\n"},
            nobody("string_pattern_mismatch"),
        ),
        _refused(
            "tenant shared", "The name is reserved.", {"tenant": "shared"}, nobody("reserved_name")
        ),
        _refused("no tenant", "Required.", {"tenant": MISSING}, nobody("missing")),
        _refused(
            "id too long",
            "64 characters at most.",
            {"id": "x" * 65},
            refusal("invalid_job", "string_pattern_mismatch", kind="job", tenant="acme", job=None),
        ),
        _refused(
            "unknown kind",
            "job or cancel.",
            {"kind": "pause"},
            refusal("invalid_job", "unknown_kind", kind=None, tenant="acme", job="j1"),
        ),
        _refused(
            "kind not text",
            "job or cancel.",
            {"kind": ["job"]},
            refusal("invalid_job", "unknown_kind", kind=None, tenant="acme", job="j1"),
        ),
    ]

"""Replies one by one. `expect.record` holds every field of the record as version 1 knows it."""

from aril.schemas.make_vectors.build import MISSING, Fields, Vector, pack, refusal, vector

_HEAD: Fields = {"job": "j1", "epoch": [3, 1], "worker": "worker-0:17"}
TOKENS: Fields = {"kind": "tokens", **_HEAD, "index": 7, "ids": [42], "text": " seed"}
DONE: Fields = {
    "kind": "done",
    **_HEAD,
    "index": 8,
    "text": "",
    "finish_reason": "stop",
    "usage": {"prompt_tokens": 5, "completion_tokens": 8},
    "adapter": "pirate",
    "digest": "0123456789abcdef" * 4,
    "base": "smollm2-135m-instruct",
    "seed": 7,
    "timings": {"queue_ms": 1.5, "ttft_ms": 40.25, "total_ms": 300.0},
    "metadata": {"order": "42"},
}
_ERROR: Fields = {
    "kind": "error",
    **_HEAD,
    "index": 0,
    "code": "limit_exceeded",
    "message": "sampling.max_tokens: at most 131072, not 200000",
    "retryable": False,
    "limit": 131072,
    "given": 200000,
    "metadata": {},
}


def reply_vectors() -> list[Vector]:
    """Return everything a reader of a reply topic should be tried with."""
    return [*_records(), *_skipped(), *_refused()]


def _record(name: str, meaning: str, sent: Fields, expect: Fields | None = None) -> Vector:
    return vector(name, meaning, pack(sent), {"record": sent if expect is None else expect})


def _records() -> list[Vector]:
    logprobs = [[-0.25], [-0.5, 7, -0.5, 9, -1.75]]
    two = TOKENS | {"ids": [42, 7], "logprobs": logprobs}
    backbone = DONE | {"adapter": None, "digest": None, "finish_reason": "length"}
    plain_error = {name: _ERROR[name] for name in _ERROR if name not in ("limit", "given")}
    return [
        _record("claim", "A new owner.", {"kind": "claim", **_HEAD}),
        _record(
            "claim alone", "Earlier writers crashed.", {"kind": "claim", **_HEAD, "alone": True}
        ),
        _record("release", "A writer's farewell.", {"kind": "release", **_HEAD}),
        _record(
            "first generation",
            "Some brokers count from 0.",
            {"kind": "claim", **_HEAD, "epoch": [0, 1]},
        ),
        _record("token", "One token.", TOKENS),
        _record("tokens", "Two, with logprobs; the second row tells the two most likely.", two),
        _record("held back", "A token whose text is not safe yet.", TOKENS | {"text": ""}),
        _record("nil logprobs", "The same as none.", TOKENS | {"logprobs": None}, TOKENS),
        _record("done", "Every field.", DONE),
        _record("done on the backbone", "No adapter; cut at max_tokens.", backbone),
        _record(
            "done with an invocation",
            "The adapter worked from the prompt's fourth token on.",
            DONE | {"adapter_active_from": 3},
        ),
        _record(
            "done without the invocation",
            "It was not in the prompt: the answer is the backbone's.",
            DONE | {"adapter_active_from": None},
        ),
        _record(
            "done by a mixture",
            "Adapter and digest are nil.",
            backbone
            | {
                "adapters": [
                    {"name": "pirate", "digest": "0123456789abcdef" * 4, "weight": 0.75},
                    {"name": "terse", "digest": "fedcba9876543210" * 4, "weight": -1.0},
                ]
            },
        ),
        _record(
            "done with the backbone's digest",
            "Of its weights, beside its name.",
            DONE | {"base_digest": "00ff" * 16},
        ),
        _record(
            "done after another backbone",
            "Some of its tokens came from other weights.",
            DONE | {"base_digest": "00ff" * 16, "earlier_bases": ["ff00" * 16]},
        ),
        _record(
            "claim with the backbone's digest",
            "Of whoever goes on.",
            {"kind": "claim", **_HEAD, "base_digest": "00ff" * 16},
        ),
        _record(
            "token with the backbone's digest",
            "The first of an answer tells it.",
            TOKENS | {"index": 0, "base_digest": "00ff" * 16},
        ),
        _record(
            "done without metadata",
            "Optional.",
            DONE | {"metadata": MISSING},
            DONE | {"metadata": {}},
        ),
        _record(
            "whole milliseconds",
            "An integer is a number.",
            DONE | {"timings": {"queue_ms": 1, "ttft_ms": 2, "total_ms": 3}},
            DONE | {"timings": {"queue_ms": 1.0, "ttft_ms": 2.0, "total_ms": 3.0}},
        ),
        _record(
            "done with prompt_logprobs",
            "A prompt of three tokens: two rows of 1 + 2 * top numbers.",
            DONE | {"prompt_logprobs": {"top": 1, "numbers": [-0.25, 7, -0.25, -3.5, 9, -0.125]}},
        ),
        _record(
            "done with prompt_logprobs of one token",
            "Nothing comes before the first.",
            DONE | {"prompt_logprobs": {"top": 0, "numbers": []}},
        ),
        _record("nil prompt_logprobs", "The same as none.", DONE | {"prompt_logprobs": None}, DONE),
        _record("error", "With limit and given value.", _ERROR),
        _record("error without a limit", "Both are optional.", plain_error),
        _record(
            "retry_after_ms",
            "When a job that came too early may come again.",
            plain_error | {"code": "overloaded", "retryable": True, "retry_after_ms": 1500},
        ),
        _record(
            "given in words",
            "A name instead of a number.",
            _ERROR | {"code": "unknown_adapter", "given": "pirate"},
        ),
        _record("unknown fields", "Ignored.", TOKENS | {"later": [{"a": b"\x00"}]}, TOKENS),
    ]


def _skipped() -> list[Vector]:
    meaning = "A reader of version 1 goes on as if the record were not there."
    sent = {"kind": "note", **_HEAD, "anything": [1]}
    return [
        vector("unknown kind", meaning, pack(sent), {"skipped": True}),
        vector("unknown kind, no head", meaning, pack({"kind": "note"}), {"skipped": True}),
        *_redirects(),
        *_conflicts(),
    ]


def _redirects() -> list[Vector]:
    """Skipped by the reader rule; `expect.redirect` is what one that waits for j1 makes of it."""
    sent: Fields = {"kind": "redirect", "job": "j1", "reply_from": 17}
    wrong = "Not valid, so it redirects nobody."
    return [
        vector(name, meaning, pack(sent | change), {"skipped": True, "redirect": start})
        for name, meaning, change, start in (
            ("redirect", "The answer to j1 begins at offset 17.", {}, 17),
            ("redirect to the start", "The log's first offset.", {"reply_from": 0}, 0),
            ("redirect with unknown fields", "Ignored.", {"epoch": [3, 1]}, 17),
            ("redirect of another job", "It says nothing of j1.", {"job": "j2"}, None),
            ("redirect without a place", wrong, {"reply_from": MISSING}, None),
            ("redirect to nowhere", wrong, {"reply_from": -1}, None),
        )
    ]


def _conflicts() -> list[Vector]:
    """Skipped by the reader rule; `expect.conflict` is what one that waits for j1 makes of it."""
    sent: Fields = {"kind": "conflict", "job": "j1", "sha256": "0a" * 32}
    about: Fields = {"sha256": "0a" * 32, "reply_from": None}
    wrong = "Not valid, so nobody is told."
    return [
        vector(name, meaning, pack(sent | change), {"skipped": True, "conflict": told})
        for name, meaning, change, told in (
            ("conflict", "The record with this hash is not answered.", {}, about),
            (
                "conflict at a place",
                "Nor is who began to read there and knows no more.",
                {"reply_from": 17},
                about | {"reply_from": 17},
            ),
            ("conflict without a place", "As if it were absent.", {"reply_from": None}, about),
            ("conflict with unknown fields", "Ignored.", {"epoch": [3, 1]}, about),
            ("conflict of another job", "It says nothing of j1.", {"job": "j2"}, None),
            ("conflict without a hash", wrong, {"sha256": MISSING}, None),
            ("conflict with half a hash", wrong, {"sha256": "0a" * 16}, None),
            ("conflict with a hash in capitals", wrong, {"sha256": "0A" * 32}, None),
            ("conflict with a hash and a line break", wrong, {"sha256": "0a" * 32 + "\n"}, None),
            ("conflict at no offset", wrong, {"reply_from": -1}, None),
        )
    ]


def _wrong(name: str, meaning: str, fields: Fields) -> Vector:
    return vector(name, meaning, pack(fields), refusal("invalid_job", "invalid_reply"))


def _refused() -> list[Vector]:
    version = refusal("unsupported_version", "unsupported_version")
    return [
        vector(
            "version 2", "Stop reading: it may be a terminal.", pack(TOKENS | {"v": 2}), version
        ),
        _wrong("no kind", "Required.", TOKENS | {"kind": MISSING}),
        _wrong("job with a slash", "The pattern of ids.", TOKENS | {"job": "a/b"}),
        _wrong("no worker", "Required.", TOKENS | {"worker": MISSING}),
        _wrong("epoch of one part", "Two integers.", TOKENS | {"epoch": [3]}),
        _wrong("attempt 0", "Attempts count from 1.", TOKENS | {"epoch": [3, 0]}),
        _wrong("negative generation", "From 0.", TOKENS | {"epoch": [-1, 1]}),
        _wrong("negative index", "From 0.", TOKENS | {"index": -1}),
        _wrong("index true", "A boolean is no number.", TOKENS | {"index": True}),
        _wrong("no ids", "A tokens record has at least one.", TOKENS | {"ids": []}),
        _wrong("too many ids", "1,024 at most.", TOKENS | {"ids": [0] * 1025}),
        _wrong("id a boolean", "A boolean is no number.", TOKENS | {"ids": [True]}),
        _wrong("id a real number", "1.0 is no integer.", TOKENS | {"ids": [1.0]}),
        _wrong("id too large", "int32.", TOKENS | {"ids": [2**31]}),
        _wrong("text of bytes", "bin is not str.", TOKENS | {"text": b"x"}),
        _wrong("rows and ids differ", "One row per id.", TOKENS | {"logprobs": []}),
        _wrong(
            "row of two", "After the first number come pairs.", TOKENS | {"logprobs": [[-0.5, 7]]}
        ),
        _wrong("logprob nan", "Numbers are finite.", TOKENS | {"logprobs": [[float("nan")]]}),
        _wrong("an invocation before the prompt", "From 0.", DONE | {"adapter_active_from": -1}),
        _wrong("a mixture without digests", "All are told.", DONE | {"adapters": [{"name": "a"}]}),
        _wrong("earlier bases not text", "Digests.", DONE | {"earlier_bases": [1]}),
        _wrong("a mixture of none", "One at least.", DONE | {"adapters": []}),
        _wrong("unknown finish reason", "stop or length.", DONE | {"finish_reason": "tired"}),
        _wrong(
            "usage without a count", "Both are required.", DONE | {"usage": {"prompt_tokens": 5}}
        ),
        _wrong(
            "negative time",
            "From 0.",
            DONE | {"timings": {"queue_ms": -1.0, "ttft_ms": 0.0, "total_ms": 0.0}},
        ),
        *(
            _wrong(name, meaning, DONE | {"prompt_logprobs": {"top": 1, "numbers": numbers}})
            for name, meaning, numbers in (
                ("prompt rows of two", "1 + 2 * top numbers a token.", [-0.5, 7]),
                ("prompt row with a real id", "1.0 is no integer.", [-0.5, 7.0, -0.5]),
                ("prompt logprob nan", "Numbers are finite.", [float("nan"), 7, -0.5]),
            )
        ),
        _wrong(
            "prompt_logprobs without numbers",
            "Both are required.",
            DONE | {"prompt_logprobs": {"top": 1}},
        ),
        _wrong(
            "prompt_logprobs of 21",
            "20 at most.",
            DONE | {"prompt_logprobs": {"top": 21, "numbers": []}},
        ),
        _wrong("unknown code", "The set is closed.", _ERROR | {"code": "bad_luck"}),
        _wrong("retryable not a boolean", "1 is no boolean.", _ERROR | {"retryable": 1}),
        _wrong("infinite limit", "Numbers are finite.", _ERROR | {"limit": float("inf")}),
        _wrong("metadata value not text", "Text to text.", _ERROR | {"metadata": {"a": 1}}),
    ]

"""Requests and replies in JSON. Reasons are those of the same faults in msgpack."""

import json

from aril.schemas import limits
from aril.schemas.make_vectors.build import JOB, NOBODY, OWNER, Fields, Vector, refusal, vector
from aril.schemas.make_vectors.replies import DONE, TOKENS

_GOOD = '{"v":1,"kind":"job","id":"j1","tenant":"acme","prompt":"Hi"%s}'
_SMALLEST: Fields = {name: value for name, value in JOB.items() if name != "kind"}


def json_requests() -> list[Vector]:
    """Return jobs in JSON, and what is not quite JSON."""
    sampling = {"max_tokens": 8, "temperature": 0.5, "stop": ["\n"], "logit_bias": {"7": -1.0}}
    return [
        _read("JSON", "The smallest job.", _GOOD % "", _SMALLEST),
        _read(
            "JSON with blanks and escapes",
            "Blanks may stand before it; escapes are what they say.",
            "\r\n\t " + _GOOD.replace("Hi", "\\u0048\\ud83c\\udf4e") % "",
            _SMALLEST | {"prompt": "H🍎"},
        ),
        _read(
            "JSON with sampling",
            "The same fields as in msgpack.",
            _GOOD % f',"sampling":{json.dumps(sampling)}',
            _SMALLEST | {"sampling": sampling},
        ),
        vector(
            "JSON cancel",
            "Ends a job, whichever form that came in.",
            b'{"v":1,"kind":"cancel","id":"j1","tenant":"acme"}',
            {"cancel": {"id": "j1", "tenant": "acme"}},
        ),
        _refused(
            "JSON with a real number for a whole one",
            "A whole number has no point.",
            _GOOD % ',"priority":1.0',
            refusal("invalid_job", "int_type", **OWNER),
        ),
        _unread("JSON key twice", "Keys occur once.", _GOOD % ',"id":"j2"', "duplicate_key"),
        _unread("JSON with NaN", "Not in JSON.", _GOOD % ',"later":NaN', "not_json"),
        _unread("JSON cut short", "The end is missing.", (_GOOD % "")[:-1], "not_json"),
        _unread("JSON and more", "Nothing follows the map.", _GOOD % "" + "{}", "not_json"),
        _unread(
            "JSON with half a character",
            "A lone surrogate is no UTF-8.",
            _GOOD.replace("Hi", "\\ud83c") % "",
            "invalid_utf8",
        ),
        vector(
            "JSON nested too deep",
            "16 deep at most.",
            (_GOOD % f',"later":{"[" * 16 + "]" * 16}').encode(),
            refusal("limit_exceeded", "too_deep", **NOBODY, limit=limits.MAX_DEPTH),
        ),
        vector(
            "JSON of too many parts",
            "8,192 maps, arrays and strings at most.",
            (_GOOD % ',"later":[').encode()[:-1],
            refusal("limit_exceeded", "too_many_parts", **NOBODY, limit=limits.MAX_PARTS),
            repeat=(b'"",', limits.MAX_PARTS),
        ),
    ]


def json_replies() -> list[Vector]:
    """Return replies in JSON: what a job in JSON is answered with."""
    return [
        vector(
            f"JSON {record['kind']}",
            "The same record in JSON.",
            json.dumps({"v": limits.VERSION, **record}, ensure_ascii=False).encode(),
            {"record": record},
        )
        for record in (TOKENS, DONE)
    ]


def _read(name: str, meaning: str, text: str, job: Fields) -> Vector:
    return vector(name, meaning, text.encode(), {"job": job})


def _refused(name: str, meaning: str, text: str, expect: Fields) -> Vector:
    return vector(name, meaning, text.encode(), expect)


def _unread(name: str, meaning: str, text: str, reason: str) -> Vector:
    return vector(name, meaning, text.encode(), refusal("invalid_job", reason, **NOBODY))

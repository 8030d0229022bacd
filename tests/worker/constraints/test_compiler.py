"""What is compiled, and what is refused with which words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from aril.schemas import ErrorCode, JobError, Sampling, limits
from aril.worker.constraints.compiler import WORDS_CHARS, ConstraintCompiler
from aril.worker.constraints.trial_process import TOO_MUCH
from aril.worker.constraints.vocabulary import Vocabulary
from tests.support.constrained import of_schema

if TYPE_CHECKING:
    from aril.worker.constraints.compiler import CompiledConstraint


def compiled(compiler: ConstraintCompiler, sampling: Sampling) -> CompiledConstraint:
    """Compile what a job asks for."""
    assert sampling.constraint is not None
    return compiler.compile(sampling.constraint)


def schema(fields: dict[str, Any], *, text: bool = False) -> Sampling:
    """Ask for a schema."""
    return of_schema("s", fields, text=text).sampling()


def nested(depth: int) -> dict[str, Any]:
    """Return a schema of arrays, `depth` maps deep."""
    made: dict[str, Any] = {"type": "integer"}
    for _ in range(depth - 1):
        made = {"type": "array", "items": made}
    return made


REFUSED: dict[str, tuple[Sampling, str]] = {
    "regex, not closed": (Sampling(regex="("), "regex: .*unclosed group"),
    "regex, looks around": (Sampling(regex="a(?=b)"), "regex: .*look-around"),
    "grammar, not closed": (Sampling(grammar="start: ("), "grammar: .*Expected token"),
    "grammar, nothing to begin with": (Sampling(grammar="a: b"), "grammar: "),
    "grammar, no text": (Sampling(grammar='start: start "a"'), "grammar: no text is such an"),
    "schema, a reference outside": (
        schema({"$ref": "https://example.com/s.json"}),
        "response_format: .*not present in a registry",
    ),
    "schema, a reference to a file": (
        schema({"items": {"$ref": "file:///etc/hostname"}}),
        "response_format: .*not present in a registry",
    ),
    "schema, endless": (schema({"$ref": "#"}), "response_format: no text is such an answer"),
    "schema, not served": (schema({"not": {}}), 'response_format: Unimplemented keys: \\["not"\\]'),
    "schema, repeated keys counted": (
        schema({"type": "object", "minProperties": 2}),
        "response_format: minProperties above 1 is not served",
    ),
    "schema, no such answer": (
        schema({"type": "integer", "minimum": 5, "maximum": 3}),
        "response_format: Unsatisfiable",
    ),
    "schema, no JSON": (
        Sampling(response_format={"type": "json_schema", "json_schema": {"schema": "{"}}),  # type: ignore[arg-type]  # pydantic makes a model of it
        "response_format: the schema is no JSON",
    ),
    "schema, half a character": (
        Sampling(
            response_format={
                "type": "json_schema",
                "json_schema": {  # type: ignore[arg-type]  # same
                    "schema": '{"const":"\\ud800"}'
                },
            }
        ),
        "response_format: a string in the schema has half a character",
    ),
    "schema, no map": (
        Sampling(response_format={"type": "json_schema", "json_schema": {"schema": "[]"}}),  # type: ignore[arg-type]  # same
        "response_format: the schema is no map",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_to_is_refused_with_its_reason(
    name: str, compiler: ConstraintCompiler
) -> None:
    """The tenant is told its own field, and the engine's words in one short line."""
    sampling, words = REFUSED[name]
    with pytest.raises(JobError, match=words) as refused:
        compiled(compiler, sampling)
    assert refused.value.code is ErrorCode.INVALID_JOB
    assert len(refused.value.message) < WORDS_CHARS + 40
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("sampling", "limit"),
    [
        (schema(nested(limits.MAX_SCHEMA_DEPTH + 1), text=True), limits.MAX_SCHEMA_DEPTH),
        (schema({"enum": ["x" * limits.MAX_SCHEMA_BYTES]}), limits.MAX_SCHEMA_BYTES),
        (schema({"pattern": "x" * (limits.MAX_REGEX_CHARS + 1)}), limits.MAX_REGEX_CHARS),
    ],
    ids=["depth", "bytes", "pattern"],
)
def test_a_schema_has_bounds(sampling: Sampling, limit: int, compiler: ConstraintCompiler) -> None:
    """What passes one is told which, before the engine sees it."""
    with pytest.raises(JobError) as refused:
        compiled(compiler, sampling)
    assert refused.value.code is ErrorCode.LIMIT_EXCEEDED
    assert refused.value.limit == limit
    compiled(compiler, schema(nested(limits.MAX_SCHEMA_DEPTH), text=True))


HOSTILE: dict[str, Sampling] = {
    "intersections": schema(
        {
            "allOf": [
                {"type": "string", "pattern": f"^(.*[a-f]{{{least + 3}}}.*)$"}
                for least in range(40)
            ]
        },
        text=True,
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_takes_for_ever_is_refused_and_the_next_one_served(
    name: str, compiler: ConstraintCompiler
) -> None:
    """The process that tried it is gone; another one tries the next."""
    compiled(compiler, Sampling(regex="[a-z]"))
    first = compiler._trial._process
    assert first is not None
    with pytest.raises(JobError, match=TOO_MUCH) as refused:
        compiled(compiler, HOSTILE[name])
    assert refused.value.code is ErrorCode.LIMIT_EXCEEDED
    assert first.returncode is not None
    compiled(compiler, Sampling(regex="[a-z]+"))
    assert compiler._trial._process is not first


def test_a_schema_cannot_choose_other_separators(compiler: ConstraintCompiler) -> None:
    """The engine's own options in a schema are a keyword that says nothing, as any unknown one."""
    options = {"item_separator": ";", "whitespace_flexible": False}
    made = compiled(compiler, schema({"x-guidance": options, "type": "array"})).matcher()
    for char in "[1,":
        made.take(compiler._vocabulary.engine.tokenize_str(char)[0])
    assert made.error is None


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """Llama 2's decoder: a blank is `▁`, and the first one of a text is dropped."""
    words = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁a", "a", "▁b"]
    tokenizer = Tokenizer(
        models.BPE({word: at for at, word in enumerate(words)}, [], byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")  # noqa: S106 - no password


def test_a_blank_that_the_decoder_drops_does_not_begin_an_answer() -> None:
    """Else a text that begins with a blank would be shown without it, and not be what was asked."""
    tokenizer = sentencepiece_like()
    vocabulary = Vocabulary.of(tokenizer, len(tokenizer), frozenset({1}))
    dropped = vocabulary.dropped_blanks
    assert dropped is not None
    blanks = {token for token in range(vocabulary.size) if dropped[token >> 5] >> (token & 31) & 1}
    vocab = tokenizer.get_vocab()
    assert blanks == {vocab[word] for word in ("▁", "▁a", "▁b", "<0x20>")}


def test_the_same_constraint_has_the_same_digest(compiler: ConstraintCompiler) -> None:
    """However it came: another text, kind or field makes another."""
    one, same = schema({"type": "array"}), schema({"type": "array"})
    other = Sampling(response_format={"type": "json_object"})  # type: ignore[arg-type]  # pydantic makes a model of it
    assert one.constraint is not None
    assert same.constraint is not None
    assert other.constraint is not None
    assert compiler.digest(one.constraint) == compiler.digest(same.constraint)
    assert compiler.digest(one.constraint) != compiler.digest(other.constraint)
    assert json.loads(other.constraint.text) == {"type": "object"}

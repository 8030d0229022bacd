"""`trainable_token_indices`: rows of the embeddings, and of a head tied to them, trained anew.

PEFT keeps the rows that it trained in place of the backbone's: new special tokens, for one, without
the whole table. Only tables of tokens can have them, input embeddings and output module.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from torch import Tensor

from aril.worker.adapters.faults import AdapterFault, quoted

MAX_TOKENS: Final = 1_024
"""Of one table: each row of a batch is compared with all of its adapter's."""


class TokenTables(NamedTuple):
    """Where a backbone keeps a vector for each token."""

    embedding: str
    """Module path of the input embeddings."""
    output: str
    """Module path of the linear that makes the logits."""
    tokens: int
    features: int
    tied: bool
    """Whether both are one table."""


@dataclass(frozen=True, slots=True, eq=False)
class TokenRows:
    """Some tokens' vectors, in place of the backbone's."""

    ids: tuple[int, ...]
    values: Tensor
    """[tokens, features], in the type of the file."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainedTokens:
    """What an adapter has trained of the tables."""

    input: TokenRows | None = None
    output: TokenRows | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors; tied tables share them."""
        tensors = {id(rows.values): rows.values for rows in (self.input, self.output) if rows}
        return sum(tensor.nbytes for tensor in tensors.values())


def read_indices(fields: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return token ids by the end of their table's path, "" for the input embeddings."""
    given = fields.get("trainable_token_indices") or {}
    tables = given if isinstance(given, dict) else {"": given}
    for ids in tables.values():
        if (
            not isinstance(ids, list)
            or not all(isinstance(each, int) and not isinstance(each, bool) for each in ids)
            or len(set(ids)) < len(ids)
            or not ids
        ):
            raise AdapterFault(f"trainable_token_indices is {quoted(given)}, not distinct tokens")
        if len(ids) > MAX_TOKENS:
            raise AdapterFault(
                "trainable_token_indices has too many tokens", limit=MAX_TOKENS, given=len(ids)
            )
    return {name: tuple(ids) for name, ids in tables.items()}


def read_tokens(
    indices: Mapping[str, tuple[int, ...]],
    vectors: Mapping[str, Tensor],
    whole: Mapping[str, TokenRows],
    tables: TokenTables | None,
    *,
    adapted: Collection[str],
    ties: bool,
) -> TrainedTokens | None:
    """Match ids with the vectors that were saved, by module path; AdapterFault where they differ.

    `whole` are what was trained of tables that were saved whole (PEFT keeps those apart also where
    the backbone's are tied), `adapted` the modules that have LoRA. `ties` is ensure_weight_tying.
    """
    if not (indices or vectors or whole):
        return None
    if tables is None:
        raise AdapterFault("trained tokens of a backbone whose tables of tokens are not known")
    if whole and ties and tables.tied:
        raise AdapterFault("ensure_weight_tying with modules_to_save of tokens is not supported")
    found = dict(
        _trained(_table(name, tables), ids, vectors, tables) for name, ids in indices.items()
    )
    if unnamed := vectors.keys() - found.keys():
        raise AdapterFault(f"{min(unnamed)} has trained tokens that trainable_token_indices lacks")
    own = found.get(tables.embedding)
    tokens = TrainedTokens(own, own if tables.tied else found.get(tables.output))
    if whole and found:
        raise AdapterFault("trainable_token_indices and modules_to_save are both of tokens")
    if whole:
        tokens = TrainedTokens(whole.get(tables.embedding), whole.get(tables.output))
    if tokens.output is not None and tables.output in adapted:
        raise AdapterFault(f"{tables.output} has LoRA and trained tokens, which is not supported")
    return tokens


def _trained(
    path: str, ids: tuple[int, ...], vectors: Mapping[str, Tensor], tables: TokenTables
) -> tuple[str, TokenRows]:
    values = vectors.get(path)
    if values is None:
        raise AdapterFault(f"{path} is in trainable_token_indices but has no vectors")
    if tuple(values.shape) != (len(ids), tables.features):
        raise AdapterFault(
            f"the trained tokens of {path} are {list(values.shape)},"
            f" not {[len(ids), tables.features]} as ids and backbone want it"
        )
    outside = [each for each in ids if not 0 <= each < tables.tokens]
    if outside:
        raise AdapterFault(
            f"trainable_token_indices has a token that {path} lacks",
            limit=tables.tokens - 1,
            given=outside[0],
        )
    return path, TokenRows(ids, values)


def _table(name: str, tables: TokenTables) -> str:
    paths = (tables.embedding,) if tables.tied else (tables.embedding, tables.output)
    for path in paths:
        if name in {"", path} or path.endswith(f".{name}"):
            return path
    raise AdapterFault(
        f"trainable_token_indices names {quoted(name)}, of this backbone it can be"
        f" {' or '.join(paths)}"
    )

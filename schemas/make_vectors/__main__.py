"""Rewrite schemas/vectors/*.json."""

import json
from pathlib import Path
from typing import Any, Final

from aril.schemas import limits
from aril.schemas.make_vectors.bad_bytes import bad_bytes, long_records
from aril.schemas.make_vectors.bad_jobs import bad_fields, bad_owners
from aril.schemas.make_vectors.environments import environment_vectors
from aril.schemas.make_vectors.histories import plain_histories
from aril.schemas.make_vectors.jobs import good_requests
from aril.schemas.make_vectors.json_records import json_replies, json_requests
from aril.schemas.make_vectors.partitions import partition_vectors
from aril.schemas.make_vectors.replies import reply_vectors
from aril.schemas.make_vectors.resumes import resume_vectors
from aril.schemas.make_vectors.signatures import key_file, signature_vectors
from aril.schemas.make_vectors.take_overs import take_over_histories
from aril.schemas.make_vectors.tokens import token_vectors

FOLDER: Final = Path(__file__).parents[1] / "vectors"


def vector_files() -> dict[Path, str]:
    """Return each file with the text it should have."""
    requests = [
        *good_requests(),
        *bad_fields(),
        *bad_owners(),
        *bad_bytes(),
        *long_records(),
        *json_requests(),
    ]
    files: dict[str, list[dict[str, Any]]] = {
        "requests": requests,
        "replies": [*reply_vectors(), *json_replies()],
        "partitions": partition_vectors(),
        "streams": [*plain_histories(), *take_over_histories()],
        "tokens": token_vectors(),
        "resumes": resume_vectors(),
        "environments": environment_vectors(),
    }
    texts = {FOLDER / f"{name}.json": _render(vectors) for name, vectors in files.items()}
    return texts | {FOLDER / "signatures.json": _render(signature_vectors(), key=key_file())}


def _render(vectors: list[dict[str, Any]], **common: Any) -> str:
    """One line per vector, so that a change shows which one it is."""
    head = json.dumps({"version": limits.VERSION, **common}, ensure_ascii=False)[1:-1]
    lines = ",\n".join(json.dumps(vector, ensure_ascii=False) for vector in vectors)
    return f'{{{head}, "vectors": [\n{lines}\n]}}\n'


def main() -> None:
    """Rewrite the vector files."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in vector_files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

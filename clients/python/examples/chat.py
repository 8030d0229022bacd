"""A chat in the terminal.

    ARIL_BOOTSTRAP=localhost:9092 ARIL_TENANT=acme python chat.py

Ctrl-C ends an answer, whose job is cancelled, and asks again; Ctrl-D leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aril import ArilError, BlockingClient

if TYPE_CHECKING:
    from collections.abc import Iterator


def questions() -> Iterator[str]:
    """Ask until Ctrl-D or Ctrl-C."""
    while True:
        try:
            yield input("> ")
        except (EOFError, KeyboardInterrupt):
            return


def chat(client: BlockingClient, asked: Iterator[str], adapter: str | None = None) -> None:
    """Answer each question with all that was said before it."""
    messages: list[dict[str, str]] = []
    for question in asked:
        messages.append({"role": "user", "content": question})
        parts: list[str] = []

        def begin_again(parts: list[str] = parts) -> None:
            parts.clear()
            print("\n[starts again]")

        try:
            for piece in client.text(messages=messages, adapter=adapter, on_reset=begin_again):
                parts.append(piece)
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            pass
        except ArilError as error:
            print(f"[{error}]", end="")
        print()
        if parts:
            messages.append({"role": "assistant", "content": "".join(parts)})
        else:
            messages.pop()  # as if it had not been asked


if __name__ == "__main__":
    with BlockingClient.from_env() as client:
        chat(client, questions())

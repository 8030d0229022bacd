"""A handler of a web framework that runs in threads: POST a prompt, get the answer as it is made.

    ARIL_BOOTSTRAP=localhost:9092 ARIL_TENANT=acme gunicorn --threads 8 "wsgi:app()"
    curl -N --data "Say it in verse." localhost:8000

The client is made once a process and opened by the first request, which is behind the server's
fork. In Django the same is `StreamingHttpResponse(client.text(prompt))`. A server closes the
iterator when the browser goes away, which cancels the job.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from wsgiref.simple_server import make_server

from aril import ArilError, BlockingClient, JobFailed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

MAX_BYTES = 100_000


def app(client: BlockingClient | None = None) -> WSGIApplication:
    """Return the application."""
    shared = client or BlockingClient.from_env()

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        size = min(int(environ.get("CONTENT_LENGTH") or 0), MAX_BYTES)
        prompt = environ["wsgi.input"].read(size).decode(errors="replace")
        pieces: Iterator[str] = iter(())
        try:
            pieces = shared.text(prompt, timeout=60)
            status, first = "200 OK", next(pieces, "")  # before the status is sent: it may fail
        except (ArilError, ValueError) as error:
            wrong = isinstance(error, ValueError) or (
                isinstance(error, JobFailed) and not error.retryable
            )
            status, first = "400 Bad Request" if wrong else "503 Service Unavailable", str(error)
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return encoded(first, pieces)

    return answer


def encoded(first: str, rest: Iterator[str]) -> Iterator[bytes]:
    """Encode pieces; who closes this drops them."""
    yield first.encode()
    for piece in rest:
        yield piece.encode()


if __name__ == "__main__":
    make_server("localhost", 8000, app()).serve_forever()

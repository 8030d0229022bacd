"""OpenTelemetry's metrics of a model server, beside ours and under their own names.

From the GenAI semantic conventions: open-telemetry/semantic-conventions-genai at commit 004902b,
status Development (release v0.1.0 has these three names, too). Prometheus has no dots in names:
there are underscores, and the unit behind. Buckets are those that the conventions recommend, so
they do not reach a day: ours do.

`server.address` and `server.port` are left out: a worker has no address that requests come to.
`gen_ai.request.model` is the backbone: adapters' names have no bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from prometheus_client import Histogram

    from aril.worker.observe.metrics.families import Families
    from aril.worker.observe.metrics.jobs import Ended, Operation

PROVIDER: Final = "aril"

_LABELS: Final = (
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_response_model",
)
_DURATION: Final = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64),
    *(1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
)
_FIRST_TOKEN: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1),
    *(0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
)
_OUTPUT_TOKEN: Final = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5),
)


class GenAiMetrics:
    """The three families. A job is counted where it ends, once."""

    def __init__(self, families: Families) -> None:
        families.section("OpenTelemetry's names")
        self.model = ""  # the backbone's name, once it is loaded
        self._children: dict[tuple[Histogram, str, tuple[str, ...]], Histogram] = {}
        self._duration = families.histogram(
            "gen_ai_server_request_duration_seconds",
            "Generative AI server request duration: log-append time to the acknowledged terminal."
            " error_type is the error code of a job that failed, else empty.",
            _DURATION,
            *(*_LABELS, "error_type"),
        )
        self._first_token = families.histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to generate the first token, from the log-append time, for successful answers.",
            _FIRST_TOKEN,
            *_LABELS,
        )
        self._output_token = families.histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time per token generated after the first one, for successful answers.",
            _OUTPUT_TOKEN,
            *_LABELS,
        )

    def ended(self, job: Ended) -> None:
        """Take in a job that has ended."""
        error = job.end if job.failed else ""
        self._child(self._duration, job.operation, error).observe(job.seconds)
        if job.failed:
            return
        if job.first_token_seconds is not None:
            self._child(self._first_token, job.operation).observe(job.first_token_seconds)
        if job.token_seconds is not None:
            self._child(self._output_token, job.operation).observe(job.token_seconds)

    def _child(self, family: Histogram, operation: Operation, *more: str) -> Histogram:
        """Return the series of these labels, looked up once."""
        key = family, operation, more
        child = self._children.get(key)
        if child is None:
            values = operation, PROVIDER, self.model, self.model, *more
            child = self._children[key] = family.labels(*values)
        return child

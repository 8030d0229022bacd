"""What can be wrong with an adapter's folder, before it is known which tenant asked."""

from typing import Final

from aril.schemas import ErrorCode, JobError

_MAX_QUOTED_CHARS: Final = 120


class AdapterFault(Exception):  # noqa: N818 (a finding about a file, told on as a JobError)
    """The folder cannot be served; the message names the field, file or tensor."""

    def __init__(
        self, message: str, *, limit: float | None = None, given: float | str | None = None
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.given = given

    def for_job(self, name: str) -> JobError:
        """Return what the tenant is told: `adapter_invalid`, with the adapter's name."""
        return JobError(
            ErrorCode.ADAPTER_INVALID,
            f"adapter {name}: {self}",
            limit=self.limit,
            given=self.given,
        )


def quoted(value: object) -> str:
    """Return `value` as it may appear in a message: escaped, and cut to a fixed length."""
    text = ascii(value)
    return text if len(text) <= _MAX_QUOTED_CHARS else text[:_MAX_QUOTED_CHARS] + "…"

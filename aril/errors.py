"""What can go wrong for a tenant, as exceptions.

* ArilError
  * JobFailed            a worker answered the job with an error
  * JobConflict          another job of this tenant has the id
  * JobTimeout           no terminal within the caller's time-out (also a TimeoutError)
  * StreamLost           the reply topic no longer holds records that the stream needs
  * TextWithdrawn        text that was shown is withdrawn, and the new answer says something else
  * ReplyUnreadable      a worker's reply breaks the contract or is of a newer version of it
  * ClientClosed         the client was closed, or never opened
  * BadToken             a resume token that cannot be read (also a ValueError)
  * BadKey               a key for signing that cannot be read (also a ValueError)
  * BadSetting           an `ARIL_*` variable, or a file that one names (also a ValueError)
  * BrokerUnavailable    the brokers cannot be reached, or refused
    * TopicMissing       a topic that the contract needs does not exist
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aril.schemas import ErrorCode


class ArilError(Exception):
    """Whatever the client raises on purpose."""


class JobFailed(ArilError):  # noqa: N818 - named for what happened
    """A worker ended the job with an error.

    `code` is of the contract's closed set; `retryable` says whether the same job may succeed
    later, and `retry_after_ms` when, if that is known; `limit` and `given` are there when a limit
    was exceeded.
    """

    def __init__(
        self,
        job: str,
        code: ErrorCode,
        message: str,
        *,
        retryable: bool,
        limit: float | None = None,
        given: object = None,
        retry_after_ms: int | None = None,
    ) -> None:
        bounds = "" if limit is None else f" (limit {limit:g}, given {given})"
        super().__init__(f"{code}: {message}{bounds}")
        self.job = job
        self.code = code
        self.message = message
        self.retryable = retryable
        self.limit = limit
        self.given = given
        self.retry_after_ms = retry_after_ms


class JobConflict(ArilError):  # noqa: N818 - named for what happened
    """Another job of this tenant has the id: this one is not answered, the other one runs on.

    It is told by the worker, as far back as that remembers jobs: some 10,000 of a partition, fewer
    with many partitions. What was given of the stream before may be of the other job's answer.
    """

    def __init__(self, job: str) -> None:
        super().__init__(f"another job of this tenant has the id {job}")
        self.job = job


class JobTimeout(ArilError, TimeoutError):  # noqa: N818 - named for what happened
    """The job had no terminal in time; it was cancelled, unless its stream is kept."""

    def __init__(self, job: str, seconds: float) -> None:
        super().__init__(f"job {job} was not finished within {seconds:g} s")
        self.job = job
        self.seconds = seconds


class StreamLost(ArilError):  # noqa: N818 - named for what happened
    """Records of this stream were deleted by retention before they were read."""


class TextWithdrawn(ArilError):  # noqa: N818 - named for what happened
    """What `text` had given is no longer the answer; see `aril.texts`.

    The job goes on: resuming `token` gives the answer that took its place, from its beginning.
    """

    def __init__(self, job: str, token: str) -> None:
        super().__init__(f"what was shown of job {job} was withdrawn, its new answer differs")
        self.job = job
        self.token = token


class ReplyUnreadable(ArilError):  # noqa: N818 - named for what happened
    """A worker's reply breaks the contract, or is of a version that this client does not know."""


class ClientClosed(ArilError):  # noqa: N818 - named for what happened
    """The client is not open. The job itself goes on: its token can be resumed."""


class BadToken(ArilError, ValueError):  # noqa: N818 - named for what happened
    """A resume token is malformed or of another topic layout."""


class BadKey(ArilError, ValueError):  # noqa: N818 - named for what happened
    """A key for signing jobs cannot be read, or is not fit for that."""


class BadSetting(ArilError, ValueError):  # noqa: N818 - named for what happened
    """A variable of the environment has a bad value, or names what cannot be used: one line."""


class BrokerUnavailable(ArilError):  # noqa: N818 - named for what happened
    """The brokers cannot be reached, or refused what was asked."""


class TopicMissing(BrokerUnavailable):
    """A topic that the contract needs does not exist."""

"""The wire contract of Aril: records, limits, codec and the reader rule.

Everything here is pure and imports nothing else of Aril; README.md describes the same contract for
other languages, json/ and vectors/ let them check themselves against it.
"""

from aril.schemas import limits
from aril.schemas.adapters import WeightedAdapter
from aril.schemas.codec import decode_request, encode_request, question_of
from aril.schemas.conflict import Conflict, decode_conflict, encode_conflict, hash_of_record
from aril.schemas.conversation import Message
from aril.schemas.errors import DecodeError, ErrorCode, JobError
from aril.schemas.job import Cancel, Job
from aril.schemas.names import (
    SHARED,
    AdapterName,
    is_adapter,
    is_job_id,
    is_tenant,
    is_worker,
    parse_adapter,
    reply_topic,
)
from aril.schemas.partition import murmur2, reply_partition
from aril.schemas.reader import (
    DoneEvent,
    ErrorEvent,
    Event,
    ResetEvent,
    TerminalEvent,
    TokensEvent,
    VisibleStream,
)
from aril.schemas.redirect import decode_redirect, encode_redirect
from aril.schemas.reply import (
    Activation,
    ClaimRecord,
    DoneRecord,
    Epoch,
    ErrorRecord,
    FinishReason,
    MixedAdapter,
    PromptLogprobs,
    ReleaseRecord,
    ReplyRecord,
    Timings,
    TokenLogprobs,
    TokensRecord,
    Usage,
)
from aril.schemas.reply_decoder import decode_reply
from aril.schemas.reply_encoder import encode_reply
from aril.schemas.sampling import Sampling

__all__ = [
    "SHARED",
    "Activation",
    "AdapterName",
    "Cancel",
    "ClaimRecord",
    "Conflict",
    "DecodeError",
    "DoneEvent",
    "DoneRecord",
    "Epoch",
    "ErrorCode",
    "ErrorEvent",
    "ErrorRecord",
    "Event",
    "FinishReason",
    "Job",
    "JobError",
    "Message",
    "MixedAdapter",
    "PromptLogprobs",
    "ReleaseRecord",
    "ReplyRecord",
    "ResetEvent",
    "Sampling",
    "TerminalEvent",
    "Timings",
    "TokenLogprobs",
    "TokensEvent",
    "TokensRecord",
    "Usage",
    "VisibleStream",
    "WeightedAdapter",
    "decode_conflict",
    "decode_redirect",
    "decode_reply",
    "decode_request",
    "encode_conflict",
    "encode_redirect",
    "encode_reply",
    "encode_request",
    "hash_of_record",
    "is_adapter",
    "is_job_id",
    "is_tenant",
    "is_worker",
    "limits",
    "murmur2",
    "parse_adapter",
    "question_of",
    "reply_partition",
    "reply_topic",
]

"""Every bound of the wire contract: the unit in the name or beside it, the reason after it.

A record past one of these bounds is refused with a typed error that names the bound; nothing is cut
short silently. A deployment may set lower bounds of its own, for instance the model's context.
"""

from typing import Final

VERSION: Final = 1
"""The `v` of every record that this package reads and writes."""

# Records, in bytes.
MAX_REQUEST_BYTES: Final = 1_000_000
"""Under Kafka's default of 1,048,576 for a producer's request, with room for key and headers."""
MAX_REPLY_BYTES: Final = 1_000_000
"""The same, so that neither kind of topic needs a configuration of its own."""
MAX_KEY_BYTES: Final = 1_024
"""Of a request's key: a job's id is 64, and nobody reads more into it."""
MAX_HEADERS_BYTES: Final = 16_384
"""Names and values of a request's headers, `HEADER_BYTES` more for each: traces and a signature are
under 1,000. They lie in memory as long as the job waits."""
HEADER_BYTES: Final = 32

# Shape of a record, checked before memory is spent on it.
MAX_DEPTH: Final = 16
"""Nested maps and arrays, the record itself being 1; content in parts is at 5, tools go deeper."""
MAX_PARTS: Final = 8_192
"""Maps, arrays and strings in one record. The longest conversation has 5,120, and room for a field
more in each message; the longest tokens record has about 1,050."""
MAX_CONTAINERS: Final = 2_560
"""Maps and arrays among them: an empty one is 1 byte on the wire, 64 in memory, and takes twice the
time of a string. The longest conversation has 1,026, the longest tokens record about 1,030."""
MAX_ELEMENTS: Final = 262_144
"""What all maps and arrays hold together, numbers included: twice the longest prompt, so that one
too long is told its limit; a megabyte of small numbers takes 30 ms to decode."""
MAX_MAP_FIELDS: Final = 64
"""Fields in any one map: version 1 uses at most 22, the rest is room for later versions."""

# Names, in characters.
MAX_JOB_ID_CHARS: Final = 64
"""A UUID is 36, a SHA-256 in hexadecimal is 64."""
MAX_NAME_CHARS: Final = 63
"""Tenant and adapter names: a DNS label, so that they are safe in topics, folders and labels."""
MAX_WORKER_CHARS: Final = 128
"""A host name, a process id and a random part."""
MAX_TOPIC_CHARS: Final = 249
"""Kafka's own bound on a topic name."""

# The prompt.
MAX_PROMPT_CHARS: Final = 500_000
"""Characters of `prompt`, or of all `messages` together: far past the contexts in use today."""
MAX_PROMPT_TOKENS: Final = 131_072
"""Elements of `token_ids`: 128 Ki, the longest context of the backbones this is meant for."""
MAX_MESSAGES: Final = 1_024
"""Turns of one conversation."""
MAX_TOOLS: Final = 128
"""Functions that a conversation is told of, OpenAI's bound; the record's parts may be fewer."""
MAX_TEMPLATE_VARIABLES: Final = 16
"""What a job may tell its chat template beside messages and tools."""
MAX_TEMPLATE_VARIABLE_CHARS: Final = 16_384
"""Characters of all of these together: a template may write one of them once a message."""
MAX_CONTENT_PARTS: Final = 64
"""Pieces of text that one message may come in."""
MAX_TOKEN_ID: Final = 2**31 - 1
"""Token ids are int32 on the device."""

# Sampling. Ranges are those of the OpenAI interface where it has one, else vLLM's.
MAX_MAX_TOKENS: Final = 131_072
"""As long as the longest prompt."""
MAX_TEMPERATURE: Final = 2.0
MAX_TOP_K: Final = 2**31 - 1
"""Anything at or above the vocabulary's size means off, as does 0."""
MIN_REPETITION_PENALTY: Final = 0.1
MAX_REPETITION_PENALTY: Final = 10.0
"""Logits are divided by it; past 10 every seen token is gone, below 0.1 no other is left."""
MAX_ABSOLUTE_PENALTY: Final = 2.0
"""Presence and frequency penalties lie in [-2, 2]."""
MAX_SEED: Final = 2**63 - 1
"""A non-negative int64: every language has one."""
MAX_STOP_STRINGS: Final = 16
"""OpenAI allows 4; each one costs a scan of the text's tail at each token."""
MAX_STOP_CHARS: Final = 256
"""Text is held back up to this length while it may still become a stop string."""
MAX_STOP_TOKEN_IDS: Final = 64
MAX_LOGIT_BIASES: Final = 64
"""As many as any map has fields; each is added to the logits at every token."""
MAX_ABSOLUTE_LOGIT_BIAS: Final = 100.0
"""OpenAI's range: at its ends a token is as good as forbidden, or forced."""
MAX_SCHEMA_BYTES: Final = 65_536
"""Of a JSON Schema, without blanks; one that came as a map has the record's bounds too. The engine
takes longer with each byte."""
MAX_SCHEMA_DEPTH: Final = 64
"""Nested maps and arrays of a schema that came as text; the engine's own bound is 128."""
MAX_REGEX_CHARS: Final = 8_192
"""Also of each `pattern` in a schema."""
MAX_GRAMMAR_CHARS: Final = 8_192
"""Fewer than of a schema: in Lark each rule may nest all others."""
MAX_CHOICES: Final = 1_024
MAX_CHOICE_CHARS: Final = 1_024
MAX_LOGPROBS: Final = 20
"""Alternatives per token, OpenAI's bound; a row of 20 is about 280 bytes."""
MAX_PROMPT_LOGPROB_NUMBERS: Final = 32_768
"""Numbers that tell of a prompt, 1 + 2n for a token and n alternatives: they come in one record,
which holds as many also in JSON (21 bytes each)."""

# Adapters.
MAX_ADAPTER_SCALE: Final = 4.0
"""How strong an adapter may be asked to be: past twice its trained strength answers fall apart."""
MAX_MIXED_ADAPTERS: Final = 4
"""Of one job: each takes a slot on the device."""
MAX_ABSOLUTE_MIXTURE_WEIGHT: Final = 4.0
"""Weights in a mixture lie in [-4, 4]; a negative one takes away what its adapter adds."""

# The rest of a job.
MAX_ABSOLUTE_PRIORITY: Final = 100
MAX_DEADLINE_MS: Final = 604_800_000
"""Seven days in milliseconds, Kafka's default retention: later the record may be gone."""
MAX_PARTITION: Final = 2**31 - 1
"""Kafka's partitions are int32."""
MAX_OFFSET: Final = 2**63 - 1
"""Kafka's offsets are int64."""
MAX_METADATA_ENTRIES: Final = 16
"""This and the next two are OpenAI's bounds on metadata; it is echoed in the terminal."""
MAX_METADATA_KEY_CHARS: Final = 64
MAX_METADATA_VALUE_CHARS: Final = 512

# Replies.
MAX_TOKENS_PER_RECORD: Final = 1_024
"""A publisher that lags splits: 1,024 tokens with 20 logprobs each are about 300 kB."""
MAX_REPLY_TEXT_CHARS: Final = 200_000
"""Text of one record: under 800 kB in UTF-8 even if every character takes four bytes."""
MAX_INDEX: Final = 2**31 - 1
MAX_EPOCH_PART: Final = 2**53 - 1
"""Generations and attempts: the integers that every JSON reader keeps exact."""
MAX_ERROR_MESSAGE_CHARS: Final = 500
MAX_GIVEN_CHARS: Final = 256
MAX_RETRY_AFTER_MS: Final = 86_400_000
"""The offending value in an error, when it is a string."""
MAX_EARLIER_BASES: Final = 8
"""Backbones with other weights that an answer passed through; of more, the last ones are told."""
MAX_REPLY_NAME_CHARS: Final = 256
"""Names of adapter, digest and backbone in a terminal."""

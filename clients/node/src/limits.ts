/** The bounds of the wire contract that a client needs; schemas/limits.py has all, with reasons. */

export const VERSION = 1;

export const MAX_REQUEST_BYTES = 1_000_000;
export const MAX_REPLY_BYTES = 1_000_000;

// The shape of a record.
export const MAX_DEPTH = 16;
export const MAX_PARTS = 8_192;
export const MAX_CONTAINERS = 2_560;
export const MAX_ELEMENTS = 262_144;
export const MAX_MAP_FIELDS = 64;

// Replies.
export const MAX_TOKENS_PER_RECORD = 1_024;
export const MAX_REPLY_TEXT_CHARS = 200_000;
export const MAX_REPLY_NAME_CHARS = 256;
export const MAX_INDEX = 2 ** 31 - 1;
export const MAX_TOKEN_ID = 2 ** 31 - 1;
export const MAX_EPOCH_PART = Number.MAX_SAFE_INTEGER;
export const MAX_LOGPROBS = 20;
export const MAX_PROMPT_LOGPROB_NUMBERS = 32_768;
export const MAX_MIXED_ADAPTERS = 4;
export const MAX_EARLIER_BASES = 8;
export const MAX_ERROR_MESSAGE_CHARS = 500;
export const MAX_GIVEN_CHARS = 256;
export const MAX_RETRY_AFTER_MS = 86_400_000;
export const MAX_METADATA_ENTRIES = 16;
export const MAX_METADATA_KEY_CHARS = 64;
export const MAX_METADATA_VALUE_CHARS = 512;

// Numbers of 64 bits.
export const MAX_INT64 = 2n ** 63n - 1n;
export const MIN_INT64 = -(2n ** 63n);
export const MAX_UINT64 = 2n ** 64n - 1n;

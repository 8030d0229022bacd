package aril.client;

import java.util.regex.Pattern;

/** Bounds of the wire contract, version 1; schemas/limits.py has their reasons. */
final class Limits {
    static final int VERSION = 1;

    // The shape of a record.
    static final int RECORD_BYTES = 1_000_000;
    static final int DEPTH = 16;
    static final int PARTS = 8_192;
    static final int CONTAINERS = 2_560;
    static final int ELEMENTS = 262_144;
    static final int MAP_FIELDS = 64;

    // Names. Anchored by matches().
    static final Pattern JOB_ID = Pattern.compile("[A-Za-z0-9._-]{1,64}");
    static final Pattern NAME = Pattern.compile("[a-z0-9][a-z0-9-]{0,62}");
    static final Pattern ADAPTER = Pattern.compile("[a-z0-9][a-z0-9-]{0,62}(@[0-9a-f]{64})?");
    static final Pattern WORKER = Pattern.compile("[A-Za-z0-9._:-]{1,128}");
    static final Pattern VARIABLE = Pattern.compile("[A-Za-z][A-Za-z0-9_]{0,63}");
    static final String SHARED = "shared";

    // Prompts.
    static final int PROMPT_CHARS = 500_000;
    static final int PROMPT_TOKENS = 131_072;
    static final int MESSAGES = 1_024;
    static final int TOOLS = 128;
    static final int VARIABLES = 16;
    static final int VARIABLE_CHARS = 16_384;
    static final int SHORT_CHARS = 64;
    static final int LONG_CHARS = 512;

    // Sampling.
    static final int MAX_TOKENS = 131_072;
    static final int STOPS = 16;
    static final int STOP_CHARS = 256;
    static final int STOP_TOKENS = 64;
    static final int BIASES = 64;
    static final int LOGPROBS = 20;
    static final int SCHEMA_CHARS = 65_536;
    static final int FORM_CHARS = 8_192;
    static final int CHOICES = 1_024;
    static final int CHOICE_CHARS = 1_024;

    // The rest of a job.
    static final int MIXED_ADAPTERS = 4;
    static final int PRIORITY = 100;
    static final long DEADLINE_MS = 604_800_000;
    static final int METADATA = 16;

    // Replies.
    static final int TOKENS = 1_024;
    static final int REPLY_CHARS = 200_000;
    static final int REPLY_NAME_CHARS = 256;
    static final int MESSAGE_CHARS = 500;
    static final int GIVEN_CHARS = 256;
    static final int RETRY_MS = 86_400_000;
    static final int EARLIER_BASES = 8;
    static final int PROMPT_NUMBERS = 32_768;
    static final long EPOCH_PART = (1L << 53) - 1;

    private Limits() {}

    /** Returns whether {@code text} names a tenant. */
    static boolean isTenant(String text) {
        return NAME.matcher(text).matches() && !text.equals(SHARED);
    }
}

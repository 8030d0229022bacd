package aril.client;

import java.util.Arrays;
import java.util.Locale;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;

/** The closed set of codes that a job can end in; docs/reference/errors.md says what to do. */
public enum ErrorCode {
    INVALID_JOB,
    UNSUPPORTED_VERSION,
    UNKNOWN_ADAPTER,
    ADAPTER_INVALID,
    PROMPT_TOO_LONG,
    LIMIT_EXCEEDED,
    DEADLINE_EXCEEDED,
    CANCELLED,
    OVERLOADED,
    CRASH_LOOP,
    INTERNAL;

    private static final Map<String, ErrorCode> BY_TEXT =
            Arrays.stream(values()).collect(Collectors.toMap(ErrorCode::text, Function.identity()));

    /** Returns the code as records have it, {@code limit_exceeded} for one. */
    public String text() {
        return name().toLowerCase(Locale.ROOT);
    }

    /** Returns the code of this text, or null if version 1 has none. */
    static ErrorCode of(String text) {
        return BY_TEXT.get(text);
    }
}

package aril.client;

import java.util.Collection;
import java.util.regex.Pattern;

/** What a job's fields are held to when they are made. All throw {@link InvalidJobException}. */
final class Check {
    private Check() {}

    /** Past an upper bound is a limit, below a lower one a mistake. */
    static long within(String field, long value, long least, long most) {
        if (value > most) {
            throw over(ErrorCode.LIMIT_EXCEEDED, field, "", most, value);
        }
        if (value < least) {
            throw under(field, "at least " + least, least, value);
        }
        return value;
    }

    static double within(String field, double value, double least, double most) {
        if (!Double.isFinite(value)) {
            throw new InvalidJobException(field + ": must be a finite number");
        }
        if (value > most) {
            throw over(ErrorCode.LIMIT_EXCEEDED, field, "", most, value);
        }
        if (value < least) {
            throw under(field, "at least " + least, least, value);
        }
        return value;
    }

    static double above(String field, double value, double bound, double most) {
        if (value == bound) {
            throw under(field, "more than " + bound, bound, value);
        }
        return within(field, value, bound, most);
    }

    /** Lengths are in Unicode characters, which are not Java's. */
    static String text(String field, String value, int least, int most) {
        return text(ErrorCode.LIMIT_EXCEEDED, field, value, least, most);
    }

    static String text(ErrorCode past, String field, String value, int least, int most) {
        if (value == null) {
            throw new InvalidJobException(field + ": is required");
        }
        int chars = value.codePointCount(0, value.length());
        if (chars > most) {
            throw over(past, field, " characters", most, chars);
        }
        if (chars < least) {
            throw under(field, "at least " + least + " characters", least, chars);
        }
        return value;
    }

    static void size(String field, Collection<?> value, int least, int most) {
        size(ErrorCode.LIMIT_EXCEEDED, field, value.size(), least, most);
    }

    static void size(ErrorCode past, String field, int size, int least, int most) {
        if (size > most) {
            throw over(past, field, " elements", most, size);
        }
        if (size < least) {
            throw under(field, "at least " + least + " elements", least, size);
        }
    }

    static String name(String field, String value, Pattern pattern) {
        if (value == null || !pattern.matcher(value).matches()) {
            throw new InvalidJobException(field + ": must match " + pattern);
        }
        return value;
    }

    static String adapter(String field, String value) {
        name(field, value, Limits.ADAPTER);
        if (value.equals(Limits.SHARED) || value.startsWith(Limits.SHARED + "@")) {
            throw new InvalidJobException(field + ": the name 'shared' is reserved");
        }
        return value;
    }

    static int tokenId(String field, Integer id) {
        if (id == null || id < 0) {
            throw new InvalidJobException(field + ": token ids are at least 0");
        }
        return id;
    }

    static InvalidJobException over(
            ErrorCode code, String field, String unit, Number most, Number given) {
        String message = field + ": at most " + most + unit + ", not " + given;
        return new InvalidJobException(code, message, most, given);
    }

    private static InvalidJobException under(
            String field, String bound, Number least, Number given) {
        String message = field + ": " + bound + ", not " + given;
        return new InvalidJobException(ErrorCode.INVALID_JOB, message, least, given);
    }
}

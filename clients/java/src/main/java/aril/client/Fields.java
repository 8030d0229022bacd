package aril.client;

import java.math.BigInteger;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;

/** A map's fields by their types, which are exact. What does not fit is unreadable. */
final class Fields {
    private final Map<String, Object> fields;

    Fields(Map<String, Object> fields) {
        this.fields = fields;
    }

    static ReplyUnreadableException wrong(String name) {
        return RecordReader.malformed(name + ": missing or not valid");
    }

    boolean has(String name) {
        return fields.containsKey(name);
    }

    /** Returns whether the field is missing or nil. */
    boolean isNil(String name) {
        return fields.get(name) == null;
    }

    Object get(String name) {
        return fields.get(name);
    }

    String text(String name, int most) {
        return text(name, fields.get(name), most);
    }

    String optionalText(String name, int most) {
        return isNil(name) ? null : text(name, most);
    }

    static String text(String name, Object value, int most) {
        if (value instanceof String text && text.codePointCount(0, text.length()) <= most) {
            return text;
        }
        throw wrong(name);
    }

    String name(String name, Pattern pattern) {
        if (fields.get(name) instanceof String text && pattern.matcher(text).matches()) {
            return text;
        }
        throw wrong(name);
    }

    long integer(String name, long least, long most) {
        return integer(name, fields.get(name), least, most);
    }

    /** Returns an index, a count or a token id: in [0, 2^31). */
    int index(String name) {
        return (int) integer(name, 0, Integer.MAX_VALUE);
    }

    static long integer(String name, Object value, long least, long most) {
        if (value instanceof Long number && number >= least && number <= most) {
            return number;
        }
        throw wrong(name);
    }

    boolean flag(String name) {
        if (fields.get(name) instanceof Boolean flag) {
            return flag;
        }
        throw wrong(name);
    }

    /** Returns an integer or a finite float. */
    static Number number(String name, Object value) {
        if (value instanceof Long || value instanceof BigInteger) {
            return (Number) value;
        }
        if (value instanceof Double number && Double.isFinite(number)) {
            return number;
        }
        throw wrong(name);
    }

    double milliseconds(String name) {
        double value = number(name, fields.get(name)).doubleValue();
        if (value < 0) {
            throw wrong(name);
        }
        return value;
    }

    List<?> list(String name, int least, int most) {
        if (fields.get(name) instanceof List<?> list
                && list.size() >= least
                && list.size() <= most) {
            return list;
        }
        throw wrong(name);
    }

    Fields map(String name) {
        return map(name, fields.get(name));
    }

    @SuppressWarnings("unchecked") // all maps of a record have keys that are text
    static Fields map(String name, Object value) {
        if (value instanceof Map<?, ?> map) {
            return new Fields((Map<String, Object>) map);
        }
        throw wrong(name);
    }

    Map<String, Object> all() {
        return fields;
    }
}

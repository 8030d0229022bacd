package aril.client;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** Values that JSON can say: null, Boolean, Number, String, and List and Map of them. */
final class JsonValues {
    private static final int MAX_BITS = 64;

    private JsonValues() {}

    /**
     * Returns an unmodifiable deep copy, maps in their own order.
     *
     * <p>But those of {@code Map.of} have another order each time that a JVM starts, and workers
     * compare the order in tools and schemas when they tell a repeat from another job: they are
     * put into the order of their keys.
     */
    static Object frozen(String field, Object value) {
        return frozen(field, value, Limits.DEPTH);
    }

    @SuppressWarnings("unchecked")
    static Map<String, Object> frozenMap(String field, Map<String, ?> map) {
        return (Map<String, Object>) frozen(field, map);
    }

    private static Object frozen(String field, Object value, int depth) {
        if (depth == 0) {
            throw new InvalidJobException(field + ": is nested deeper than a record may be");
        }
        if (value instanceof Map<?, ?> map) {
            Map<String, Object> copy = new LinkedHashMap<>();
            for (Map.Entry<?, ?> entry : ordered(field, map).entrySet()) {
                copy.put((String) entry.getKey(), frozen(field, entry.getValue(), depth - 1));
            }
            return Collections.unmodifiableMap(copy);
        }
        if (value instanceof List<?> list) {
            List<Object> copy = new ArrayList<>(list.size());
            for (Object each : list) {
                copy.add(frozen(field, each, depth - 1));
            }
            return Collections.unmodifiableList(copy);
        }
        if (!isScalar(value)) {
            throw new InvalidJobException(field + ": holds a value that JSON has no word for");
        }
        return value;
    }

    private static Map<?, ?> ordered(String field, Map<?, ?> map) {
        if (!map.keySet().stream().allMatch(String.class::isInstance)) {
            throw new InvalidJobException(field + ": a map has a key that is not text");
        }
        boolean unstable = map.getClass().getName().startsWith("java.util.ImmutableCollections$");
        return unstable ? new TreeMap<Object, Object>(map) : map;
    }

    private static boolean isScalar(Object value) {
        if (value instanceof Double || value instanceof Float) {
            return Double.isFinite(((Number) value).doubleValue());
        }
        if (value instanceof BigInteger integer) {
            return integer.bitLength() <= (integer.signum() < 0 ? MAX_BITS - 1 : MAX_BITS);
        }
        return value == null
                || value instanceof String
                || value instanceof Boolean
                || value instanceof Long
                || value instanceof Integer
                || value instanceof Short
                || value instanceof Byte;
    }

    /** Returns how many Unicode characters all texts in {@code value} have, keys included. */
    static int chars(Object value) {
        if (value instanceof String text) {
            return text.codePointCount(0, text.length());
        }
        int sum = 0;
        if (value instanceof Map<?, ?> map) {
            for (Map.Entry<?, ?> entry : map.entrySet()) {
                sum += chars(entry.getKey()) + chars(entry.getValue());
            }
        } else if (value instanceof List<?> list) {
            for (Object each : list) {
                sum += chars(each);
            }
        }
        return sum;
    }
}

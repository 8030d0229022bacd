package aril.client;

import java.util.Map;

/** Bytes that nobody vouches for to one plain map, in bounded memory. */
final class RecordReader {
    /** Blanks in front of a brace beyond these are taken for msgpack, as workers do. */
    private static final int LOOK = 64;

    private RecordReader() {}

    /**
     * Returns the map that a record's value is. Texts are String, integers Long or BigInteger,
     * other numbers Double, arrays List, bytes byte[].
     *
     * @throws ReplyUnreadableException if it is no map, or past a bound of its shape
     */
    static Map<String, Object> read(byte[] value) {
        if (value == null || value.length == 0) {
            throw malformed("the record has no value");
        }
        if (value.length > Limits.RECORD_BYTES) {
            String told = "at most " + Limits.RECORD_BYTES + ", not " + value.length;
            throw new ReplyUnreadableException(
                    ErrorCode.LIMIT_EXCEEDED, "bytes in the record: " + told);
        }
        return isJson(value) ? JsonReader.read(value) : MsgpackReader.read(value);
    }

    private static boolean isJson(byte[] value) {
        for (int at = 0; at < Math.min(value.length, LOOK); at++) {
            switch (value[at]) {
                case ' ', '\t', '\n', '\r' -> { }
                default -> {
                    return value[at] == '{';
                }
            }
        }
        return false;
    }

    static ReplyUnreadableException malformed(String message) {
        return new ReplyUnreadableException(ErrorCode.INVALID_JOB, message);
    }
}

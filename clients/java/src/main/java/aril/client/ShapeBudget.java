package aril.client;

/** What a record may cost: counted while it is read, before much has been built of it. */
final class ShapeBudget {
    private int parts;
    private int containers;
    private long elements;

    /** Counts a text. */
    void text() {
        parts++;
        check(parts, Limits.PARTS, "maps, arrays, strings");
    }

    /** Counts a map or an array at a depth of nesting, the record's own being 1. */
    void container(int depth) {
        check(depth, Limits.DEPTH, "levels of maps and arrays");
        containers++;
        check(containers, Limits.CONTAINERS, "maps and arrays");
        text();
    }

    /** Counts what a map or an array holds. */
    void elements(long count) {
        elements += count;
        check(elements, Limits.ELEMENTS, "elements");
    }

    /** Checks the number of fields of one map. */
    void fields(int count) {
        check(count, Limits.MAP_FIELDS, "fields in a map");
    }

    private static void check(long count, int most, String what) {
        if (count > most) {
            throw new ReplyUnreadableException(
                    ErrorCode.LIMIT_EXCEEDED, what + ": at most " + most);
        }
    }
}

package aril.client;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Where a caller stands in a job's answer. Its text, {@code
 * <partition>.<reply_from>.<count>.<resets>.<job id>}, is the same in clients of every language.
 *
 * @param partition of the reply topic
 * @param replyFrom the offset where the answer begins at the earliest
 * @param count the visible tokens that were given since the last of {@code resets} resets
 */
public record ResumeToken(int partition, long replyFrom, int count, int resets, String job) {
    private static final String FORM = "<partition>.<reply_from>.<count>.<resets>.<job id>";
    private static final Pattern TEXT = Pattern.compile(
            "([0-9]{1,19})\\.".repeat(4) + "(" + Limits.JOB_ID.pattern() + ")");

    /**
     * Reads what {@link #toString} wrote.
     *
     * @throws BadTokenException if it is no token
     */
    public static ResumeToken parse(String text) {
        Matcher found = TEXT.matcher(text);
        if (!found.matches()) {
            throw bad();
        }
        try {
            return new ResumeToken(
                    Integer.parseInt(found.group(1)),
                    Long.parseLong(found.group(2)),
                    Integer.parseInt(found.group(3)),
                    Integer.parseInt(found.group(4)),
                    found.group(5));
        } catch (NumberFormatException error) { // 19 digits may be too many
            throw bad();
        }
    }

    private static BadTokenException bad() {
        return new BadTokenException("a token is " + FORM);
    }

    @Override
    public String toString() {
        return partition + "." + replyFrom + "." + count + "." + resets + "." + job;
    }
}

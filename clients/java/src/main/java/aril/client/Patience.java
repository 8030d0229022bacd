package aril.client;

import java.time.Duration;
import java.util.concurrent.TimeUnit;

/**
 * How long a caller waits for a whole answer.
 *
 * @param timeout as it was given; null: without end
 * @param until as of {@code System.nanoTime()}; null: without end
 */
record Patience(Duration timeout, Long until) {
    /** Begins to wait. What is longer than 292 years is without end: no clock here measures it. */
    static Patience of(Duration timeout) {
        if (timeout == null) {
            return new Patience(null, null);
        }
        long nanos = TimeUnit.NANOSECONDS.convert(timeout); // the nearest that there is
        boolean endless = nanos == Long.MAX_VALUE;
        return new Patience(timeout, endless ? null : (Long) (System.nanoTime() + nanos));
    }

    /** Returns the nanoseconds that are left, or less than 1; not of what has no end. */
    long left() {
        return until - System.nanoTime();
    }

    JobTimeoutException over(String job) {
        return new JobTimeoutException(job, timeout);
    }
}

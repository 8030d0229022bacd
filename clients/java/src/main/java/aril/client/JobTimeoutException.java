package aril.client;

import java.time.Duration;

/** The job had no end in time; a cancel was sent for it. */
public final class JobTimeoutException extends ArilException {
    private static final long serialVersionUID = 1L;

    JobTimeoutException(String job, Duration timeout) {
        super("job " + job + " was not finished within " + timeout.toMillis() + " ms");
    }
}

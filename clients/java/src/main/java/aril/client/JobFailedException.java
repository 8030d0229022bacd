package aril.client;

import java.io.Serializable;

/** A worker ended the job with an error. */
public final class JobFailedException extends ArilException {
    private static final long serialVersionUID = 1L;
    private final String job;
    private final ErrorCode code;
    private final boolean retryable;
    private final Number limit;
    private final Serializable given;
    private final Long retryAfterMs;

    JobFailedException(String job, Event.Failed event) {
        super(told(event));
        this.job = job;
        this.code = event.code();
        this.retryable = event.retryable();
        this.limit = event.limit();
        this.given = (Serializable) event.given(); // a Number or a String
        this.retryAfterMs = event.retryAfterMs();
    }

    private static String told(Event.Failed event) {
        String said = event.code().text() + ": " + event.message();
        return event.limit() == null
                ? said
                : said + " (limit " + event.limit() + ", given " + event.given() + ")";
    }

    public String job() {
        return job;
    }

    public ErrorCode code() {
        return code;
    }

    /** Whether the same job under a new id may succeed with nothing else changed. */
    public boolean retryable() {
        return retryable;
    }

    /** The bound that was passed, or null. */
    public Number limit() {
        return limit;
    }

    /** What passed it, a Number or a String, or null. */
    public Object given() {
        return given;
    }

    /** In how many milliseconds an {@code OVERLOADED} job may come again, or null. */
    public Long retryAfterMs() {
        return retryAfterMs;
    }
}

package aril.client;

/** A job breaks the contract: it was not sent. The message names the field, never its content. */
public final class InvalidJobException extends IllegalArgumentException {
    private static final long serialVersionUID = 1L;
    private final ErrorCode code;
    private final Number limit;
    private final Number given;

    InvalidJobException(ErrorCode code, String message, Number limit, Number given) {
        super(message);
        this.code = code;
        this.limit = limit;
        this.given = given;
    }

    InvalidJobException(String message) {
        this(ErrorCode.INVALID_JOB, message, null, null);
    }

    /** The code that a worker would have answered with. */
    public ErrorCode code() {
        return code;
    }

    /** The bound that was passed, or null. */
    public Number limit() {
        return limit;
    }

    /** What passed it, or null. */
    public Number given() {
        return given;
    }
}

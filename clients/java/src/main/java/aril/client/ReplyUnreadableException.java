package aril.client;

/** A reply breaks the contract, or is of a version that this client does not know. */
public final class ReplyUnreadableException extends ArilException {
    private static final long serialVersionUID = 1L;
    private final ErrorCode code;

    ReplyUnreadableException(ErrorCode code, String message) {
        super(message);
        this.code = code;
    }

    /** Returns {@code UNSUPPORTED_VERSION}, {@code LIMIT_EXCEEDED} or {@code INVALID_JOB}. */
    public ErrorCode code() {
        return code;
    }
}

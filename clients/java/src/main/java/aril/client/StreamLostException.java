package aril.client;

/** Records of this stream were deleted by retention before they were read. */
public final class StreamLostException extends ArilException {
    private static final long serialVersionUID = 1L;

    StreamLostException(String message) {
        super(message);
    }
}

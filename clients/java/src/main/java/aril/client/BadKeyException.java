package aril.client;

/** A key for signing jobs cannot be read, or is not fit for that; the message says why. */
public final class BadKeyException extends ArilException {
    private static final long serialVersionUID = 1L;

    BadKeyException(String message) {
        super(message);
    }
}

package aril.client;

/** A resume token is malformed, of another topic layout, or fits no place in its stream. */
public final class BadTokenException extends ArilException {
    private static final long serialVersionUID = 1L;

    BadTokenException(String message) {
        super(message);
    }
}

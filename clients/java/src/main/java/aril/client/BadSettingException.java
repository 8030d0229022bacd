package aril.client;

/** A variable of the environment has a bad value, or names what cannot be used: one line. */
public final class BadSettingException extends ArilException {
    private static final long serialVersionUID = 1L;

    BadSettingException(String message) {
        super(message);
    }
}

package aril.client;

/** The thread was interrupted while it waited; its interrupt flag is set again. */
public final class WaitInterruptedException extends ArilException {
    private static final long serialVersionUID = 1L;

    private WaitInterruptedException(InterruptedException cause) {
        super("interrupted while waiting", cause);
    }

    /** Returns the exception, having set the flag that the cause has cleared. */
    static WaitInterruptedException of(InterruptedException cause) {
        Thread.currentThread().interrupt();
        return new WaitInterruptedException(cause);
    }
}

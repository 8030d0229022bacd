package aril.client;

/** The client or the stream was closed. The job may go on: its token can be resumed. */
public final class ClientClosedException extends ArilException {
    private static final long serialVersionUID = 1L;

    ClientClosedException(String message) {
        super(message);
    }
}

package aril.client;

/** The brokers cannot be reached, or refused what was asked; the cause is the library's. */
public class BrokerUnavailableException extends ArilException {
    private static final long serialVersionUID = 1L;

    BrokerUnavailableException(String message) {
        super(message);
    }

    BrokerUnavailableException(String message, Throwable cause) {
        super(message, cause);
    }
}

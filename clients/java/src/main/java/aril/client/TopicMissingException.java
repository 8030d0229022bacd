package aril.client;

/** A topic that the contract needs does not exist. */
public final class TopicMissingException extends BrokerUnavailableException {
    private static final long serialVersionUID = 1L;

    TopicMissingException(String message) {
        super(message);
    }
}

package aril.client;

/**
 * Whatever the client throws on purpose.
 *
 * <ul>
 *   <li>{@link JobFailedException} a worker answered the job with an error
 *   <li>{@link JobTimeoutException} no end within the caller's time
 *   <li>{@link StreamLostException} the reply topic no longer holds what the stream needs
 *   <li>{@link ReplyUnreadableException} a reply breaks the contract, or is of a newer version
 *   <li>{@link ClientClosedException} the client or the stream was closed
 *   <li>{@link BadTokenException} a resume token that cannot be read or fits nowhere
 *   <li>{@link BadKeyException} a key for signing that cannot be used
 *   <li>{@link WaitInterruptedException} the thread was interrupted while it waited
 *   <li>{@link BrokerUnavailableException} the brokers cannot be reached, or refused
 *       <ul>
 *         <li>{@link TopicMissingException} a topic that the contract needs does not exist
 *       </ul>
 * </ul>
 *
 * <p>A job that breaks the contract is refused before it is sent, by {@link InvalidJobException}.
 */
public class ArilException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    ArilException(String message) {
        super(message);
    }

    ArilException(String message, Throwable cause) {
        super(message, cause);
    }
}

package aril.client;

/**
 * Another job of this tenant has the id: this one is not answered, the other one runs on. What came
 * of the stream before may be of its answer.
 */
public final class JobConflictException extends ArilException {
    private static final long serialVersionUID = 1L;

    JobConflictException(String job) {
        super("another job of this tenant has the id " + job);
    }
}

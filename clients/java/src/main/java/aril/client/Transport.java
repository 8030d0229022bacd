package aril.client;

import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;

/**
 * The seam between the client and a broker. Futures fail with, and methods throw, {@link
 * BrokerUnavailableException} when the brokers cannot be reached or refuse.
 *
 * <p>The last three are for the one thread that reads; all else is for any thread.
 */
interface Transport extends AutoCloseable {
    /** How many partitions the two topics of a tenant have. */
    record Partitions(int jobs, int replies) {}

    /** A followed offset of these partitions is outside of what their logs hold. */
    final class OutOfRangeException extends RuntimeException {
        private static final long serialVersionUID = 1L;
        private final transient Set<Integer> partitions;

        OutOfRangeException(Set<Integer> partitions) {
            super("partitions " + partitions + " do not hold the offset to read");
            this.partitions = partitions;
        }

        Set<Integer> partitions() {
            return partitions;
        }
    }

    /** Connects. Throws {@link TopicMissingException} if one of the two topics does not exist. */
    Partitions open();

    /** Appends a record to the jobs topic; done when every in-sync replica has it. */
    CompletableFuture<Void> send(
            int partition, byte[] key, byte[] value, Map<String, byte[]> headers);

    /** Returns the first offset that a reply partition still holds. */
    CompletableFuture<Long> logStart(int partition);

    /** Returns the offset that the next record of a reply partition will get. */
    CompletableFuture<Long> logEnd(int partition);

    /** Lets a {@code poll} that waits return at once, or the next one. */
    void wakeup();

    /** Disconnects; called when nobody polls. */
    @Override
    void close();

    /** Lets {@code poll} give the records of a reply partition from {@code offset} on. */
    void follow(int partition, long offset);

    /** Lets {@code poll} give nothing more of a reply partition. */
    void unfollow(int partition);

    /**
     * Returns what has arrived, after a short wait also nothing; each partition in order.
     *
     * @throws OutOfRangeException when a followed offset is not in the log
     */
    List<Fetched> poll();
}

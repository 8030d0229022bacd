package aril.client;

import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;

/**
 * Appends jobs and cancels in a thread of its own, in their order: while Kafka's producer knows no
 * leader, or has no memory left, it waits within {@code send}, however little time a caller has.
 */
final class JobSender {
    private final Producer<byte[], byte[]> producer;
    private final long longestNanos;
    private final ExecutorService thread;

    /**
     * Prepares.
     *
     * @param longest that {@code send} of the producer waits; who has waited so long for those
     *     before him does not begin to
     */
    JobSender(Producer<byte[], byte[]> producer, Duration longest) {
        this.producer = producer;
        this.longestNanos = longest.toNanos();
        this.thread = Executors.newSingleThreadExecutor(work -> {
            Thread made = new Thread(work, "aril-jobs");
            made.setDaemon(true); // a program that forgot to close still ends
            return made;
        });
    }

    /** Appends a record; done when it is acknowledged. */
    CompletableFuture<Void> send(ProducerRecord<byte[], byte[]> record) {
        CompletableFuture<Void> sent = new CompletableFuture<>();
        long begun = System.nanoTime();
        try {
            thread.execute(() -> append(record, begun, sent));
        } catch (RejectedExecutionException error) {
            sent.completeExceptionally(new BrokerUnavailableException("the producer is closed", error));
        }
        return sent;
    }

    /** Closes the producer; what waits for it fails. */
    void close(Duration longest) {
        thread.shutdown();
        producer.close(longest);
    }

    private void append(
            ProducerRecord<byte[], byte[]> record, long begun, CompletableFuture<Void> sent) {
        if (System.nanoTime() - begun > longestNanos) {
            sent.completeExceptionally(
                    new BrokerUnavailableException("the brokers take no records"));
            return;
        }
        try {
            producer.send(record, (where, error) -> {
                if (error == null) {
                    sent.complete(null);
                } else {
                    sent.completeExceptionally(KafkaTransport.unavailable(error));
                }
            });
        } catch (KafkaException | IllegalStateException error) { // the second once it is closed
            sent.completeExceptionally(KafkaTransport.unavailable(error));
        }
    }
}

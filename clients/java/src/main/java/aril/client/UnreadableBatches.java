package aril.client;

import java.util.HashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;

/**
 * Has a consumer read on behind a batch that it cannot unpack, the second time that it meets it:
 * the first time it may have been the network. Where the batch ends is not told, so the offsets
 * behind its first bad one are tried one by one.
 */
final class UnreadableBatches {
    private static final System.Logger LOG = System.getLogger(UnreadableBatches.class.getName());

    private final Consumer<?, ?> consumer;
    private final String topic;
    private final Pattern place;
    private final Map<TopicPartition, Long> met = new HashMap<>();

    UnreadableBatches(Consumer<?, ?> consumer, String topic) {
        this.consumer = consumer;
        this.topic = topic;
        this.place = Pattern.compile("\\b" + Pattern.quote(topic) + "-(\\d{1,9})\\b");
    }

    /** Moves the consumer where an exception of a poll is of a batch; false if it is another. */
    boolean leaveOut(KafkaException error) {
        // All that has a meaning of its own is a subclass; this one names the partition.
        if (error.getClass() != KafkaException.class || error.getMessage() == null) {
            return false;
        }
        Matcher found = place.matcher(error.getMessage());
        if (!found.find()) {
            return false;
        }
        TopicPartition where = new TopicPartition(topic, Integer.parseInt(found.group(1)));
        if (!consumer.assignment().contains(where)) {
            return false;
        }
        long at = consumer.position(where);
        long next = at;
        if (Long.valueOf(at).equals(met.get(where))) {
            next = at + 1;
            LOG.log(System.Logger.Level.ERROR,
                    "an unreadable batch is left out: {0} at {1}: {2}",
                    where, Long.toString(at), String.valueOf(error.getCause()));
        }
        consumer.seek(where, next);
        met.put(where, next);
        return true;
    }
}

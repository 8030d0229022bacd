package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.apache.kafka.clients.consumer.MockConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.CorruptRecordException;
import org.apache.kafka.common.errors.TopicAuthorizationException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Batches that cannot be unpacked, by the words that Kafka's library has for them. */
class UnreadableBatchesTest {
    private static final String TOPIC = "replies.acme";
    private static final TopicPartition HERE = new TopicPartition(TOPIC, 1);
    private static final TopicPartition BESIDE = new TopicPartition(TOPIC, 11);
    private final MockConsumer<byte[], byte[]> consumer = new MockConsumer<>("none");
    private final UnreadableBatches batches = new UnreadableBatches(consumer, TOPIC);

    UnreadableBatchesTest() {
        consumer.assign(List.of(HERE, BESIDE));
        consumer.seek(HERE, 5);
        consumer.seek(BESIDE, 50);
    }

    private static KafkaException unreadable(String message) {
        return new KafkaException(message, new CorruptRecordException("no"));
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "Received exception when fetching the next record from replies.acme-1. If needed, please"
                + " seek past the record to continue consumption.",
        "Record batch for partition replies.acme-1 at offset 5 is invalid, cause: Record is corrupt",
        "Encountered corrupt message when fetching offset 5 for topic-partition replies.acme-1"
    })
    void onlyTheSecondTimeItIsLeftOut(String message) {
        for (long next : new long[] {5, 6, 7}) {
            assertTrue(batches.leaveOut(unreadable(message)));
            assertEquals(next, consumer.position(HERE));
        }
        consumer.seek(HERE, 9); // it was read on from
        assertTrue(batches.leaveOut(unreadable(message)));
        assertEquals(9, consumer.position(HERE));
        assertEquals(50, consumer.position(BESIDE));
    }

    @Test
    void whatElseGoesWrongLeavesNothingOut() {
        String where = "replies.acme-1";
        for (KafkaException error : List.of(
                new TopicAuthorizationException("Not authorized to access topics: " + where),
                new CorruptRecordException(where),
                unreadable("Unexpected error fetching data for topic-partition replies.acme-2"),
                unreadable("the brokers are away"),
                new KafkaException())) {
            assertFalse(batches.leaveOut(error));
            assertFalse(batches.leaveOut(error));
        }
        assertEquals(5, consumer.position(HERE));
    }
}

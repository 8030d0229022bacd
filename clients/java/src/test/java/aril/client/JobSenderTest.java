package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.Callback;
import org.apache.kafka.clients.producer.MockProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** A producer that waits within its send, as Kafka's does while it knows no leader. */
@Timeout(30)
class JobSenderTest {
    private static final Duration MINUTE = Duration.ofMinutes(1);

    private static final class Waiting extends MockProducer<byte[], byte[]> {
        final CountDownLatch entered = new CountDownLatch(1);
        final CountDownLatch away = new CountDownLatch(1);

        Waiting() {
            super(true, null, new ByteArraySerializer(), new ByteArraySerializer());
        }

        @Override
        public Future<RecordMetadata> send(
                ProducerRecord<byte[], byte[]> record, Callback callback) {
            entered.countDown();
            try {
                away.await();
            } catch (InterruptedException error) {
                throw new IllegalStateException(error);
            }
            return super.send(record, callback);
        }
    }

    private static ProducerRecord<byte[], byte[]> record(int value) {
        return new ProducerRecord<>("jobs", 0, new byte[0], new byte[] {(byte) value});
    }

    @Test
    void nobodyWaitsInItForBrokers() throws Exception {
        Waiting producer = new Waiting();
        JobSender sender = new JobSender(producer, MINUTE);
        CompletableFuture<Void> job = sender.send(record(1));
        CompletableFuture<Void> cancel = sender.send(record(2));
        producer.entered.await();
        assertFalse(job.isDone());
        producer.away.countDown();
        job.get();
        cancel.get();
        List<Byte> sent = producer.history().stream().map(each -> each.value()[0]).toList();
        assertEquals(List.of((byte) 1, (byte) 2), sent);
        sender.close(MINUTE);
    }

    @Test
    void whoHasWaitedLongEnoughForOthersDoesNotBegin() throws Exception {
        Waiting producer = new Waiting();
        JobSender sender = new JobSender(producer, Duration.ZERO);
        CompletableFuture<Void> sent = sender.send(record(1));
        ExecutionException told = assertThrows(ExecutionException.class, sent::get);
        assertInstanceOf(BrokerUnavailableException.class, told.getCause());
        assertEquals(1, producer.entered.getCount());
        sender.close(MINUTE);
    }

    @Test
    void onceClosedItSendsNothing() throws Exception {
        Waiting producer = new Waiting();
        JobSender sender = new JobSender(producer, MINUTE);
        sender.close(MINUTE);
        ExecutionException told =
                assertThrows(ExecutionException.class, () -> sender.send(record(1)).get());
        assertInstanceOf(BrokerUnavailableException.class, told.getCause());
        assertEquals(List.of(), producer.history());
    }
}

package aril.client;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.TimeoutException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.errors.WakeupException;

/** The jobs topic and one tenant's reply topic on a Kafka cluster. */
final class KafkaTransport implements Transport {
    private static final Duration POLL = Duration.ofMillis(100);
    private static final Duration CLOSE = Duration.ofSeconds(5);
    private static final byte[] CONTENT_TYPE =
            "application/msgpack".getBytes(StandardCharsets.US_ASCII);

    private final KafkaSettings settings;
    private final String jobsTopic;
    private final String replyTopic;
    private final Set<TopicPartition> followed = new HashSet<>();
    private Admin admin; // topics and the ends of logs, for any thread and without waiting
    private JobSender sender;
    private KafkaConsumer<byte[], byte[]> consumer;
    private UnreadableBatches unreadable;

    KafkaTransport(KafkaSettings settings, String jobsTopic, String replyTopic) {
        this.settings = settings;
        this.jobsTopic = jobsTopic;
        this.replyTopic = replyTopic;
    }

    @Override
    public Partitions open() {
        try {
            admin = Admin.create(settings.admin());
            int jobs = partitionsOf(jobsTopic);
            int replies = partitionsOf(replyTopic);
            KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(settings.producer());
            sender = new JobSender(producer, settings.longestSend());
            producer.partitionsFor(jobsTopic); // so that the first job does not wait for it
            consumer = new KafkaConsumer<>(settings.consumer());
            unreadable = new UnreadableBatches(consumer, replyTopic);
            return new Partitions(jobs, replies);
        } catch (KafkaException error) {
            close();
            throw unavailable(error);
        } catch (RuntimeException error) {
            close();
            throw error;
        }
    }

    /** Asking a consumer or producer by name would create the topic where a cluster does that. */
    private int partitionsOf(String topic) {
        try {
            TopicDescription found =
                    admin.describeTopics(List.of(topic)).topicNameValues().get(topic).get();
            return found.partitions().size();
        } catch (ExecutionException error) {
            if (error.getCause() instanceof UnknownTopicOrPartitionException) {
                throw new TopicMissingException(
                        "topic " + topic + " does not exist; `aril topics` creates it");
            }
            if (error.getCause() instanceof TimeoutException) {
                throw new BrokerUnavailableException(
                        "no broker answers at " + settings.bootstrap(), error.getCause());
            }
            throw unavailable(error.getCause());
        } catch (InterruptedException error) {
            throw WaitInterruptedException.of(error);
        }
    }

    @Override
    public CompletableFuture<Void> send(
            int partition, byte[] key, byte[] value, Map<String, byte[]> headers) {
        ProducerRecord<byte[], byte[]> record =
                new ProducerRecord<>(jobsTopic, partition, key, value);
        record.headers().add("content-type", CONTENT_TYPE);
        headers.forEach(record.headers()::add);
        return sender.send(record);
    }

    @Override
    public CompletableFuture<Long> logStart(int partition) {
        return offset(partition, OffsetSpec.earliest());
    }

    @Override
    public CompletableFuture<Long> logEnd(int partition) {
        return offset(partition, OffsetSpec.latest());
    }

    private CompletableFuture<Long> offset(int partition, OffsetSpec which) {
        TopicPartition place = new TopicPartition(replyTopic, partition);
        CompletableFuture<Long> found = new CompletableFuture<>();
        admin.listOffsets(Map.of(place, which)).partitionResult(place).whenComplete((at, error) -> {
            if (error == null) {
                found.complete(at.offset());
            } else {
                found.completeExceptionally(unavailable(error));
            }
        });
        return found;
    }

    @Override
    public void wakeup() {
        consumer.wakeup();
    }

    @Override
    public void follow(int partition, long offset) {
        TopicPartition place = new TopicPartition(replyTopic, partition);
        if (followed.add(place)) {
            consumer.assign(followed);
        }
        consumer.seek(place, offset);
    }

    @Override
    public void unfollow(int partition) {
        // No longer assigned, it holds no fetched records either, as a paused one would.
        if (followed.remove(new TopicPartition(replyTopic, partition))) {
            consumer.assign(followed);
        }
    }

    @Override
    public List<Fetched> poll() {
        try {
            List<Fetched> records = new ArrayList<>();
            for (ConsumerRecord<byte[], byte[]> each : consumer.poll(POLL)) {
                records.add(new Fetched(each.partition(), each.offset(), each.key(), each.value()));
            }
            return records;
        } catch (WakeupException error) {
            return List.of();
        } catch (OffsetOutOfRangeException error) {
            throw new OutOfRangeException(error.partitions().stream()
                    .map(TopicPartition::partition)
                    .collect(Collectors.toSet()));
        } catch (KafkaException error) {
            if (unreadable.leaveOut(error)) {
                return List.of();
            }
            throw unavailable(error);
        }
    }

    @Override
    public void close() {
        try {
            if (sender != null) {
                sender.close(CLOSE);
            }
        } finally {
            closeReaders();
        }
    }

    private void closeReaders() {
        try {
            if (consumer != null) {
                consumer.close(CloseOptions.timeout(CLOSE));
            }
        } finally {
            if (admin != null) {
                admin.close(CLOSE);
            }
        }
    }

    static BrokerUnavailableException unavailable(Throwable error) {
        String told = error.getMessage() == null ? error.toString() : error.getMessage();
        Throwable cause = error.getCause(); // "Failed to create …" says nothing without it
        return new BrokerUnavailableException(
                cause == null ? told : told + ": " + cause.getMessage(), error);
    }
}

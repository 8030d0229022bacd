package aril.client;

import java.time.Duration;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.CommonClientConfigs;
import org.apache.kafka.clients.admin.AdminClientConfig;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** What the Kafka library is told: a caller's own settings beside those that have to be so. */
final class KafkaSettings {
    private static final int REQUEST_MS = 10_000;
    private static final int GIVE_UP_MS = 15_000;

    /** A partition that is followed anew waits for the fetch in flight to its broker. */
    private static final int FETCH_WAIT_MS = 50;

    private static final Map<String, Object> PRODUCER_FIXED = Map.of(
            ProducerConfig.ACKS_CONFIG, "all",
            ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class,
            ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, ByteArraySerializer.class,
            // A job that lands twice is answered once.
            ProducerConfig.ENABLE_IDEMPOTENCE_CONFIG, false);

    private static final Map<String, Object> CONSUMER_FIXED = Map.of(
            ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class,
            ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class,
            ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false,
            ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "none",
            ConsumerConfig.ALLOW_AUTO_CREATE_TOPICS_CONFIG, false);

    private static final Set<String> NOT_A_CALLERS = Set.of(
            CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG,
            CommonClientConfigs.GROUP_ID_CONFIG,
            CommonClientConfigs.GROUP_INSTANCE_ID_CONFIG,
            ProducerConfig.TRANSACTIONAL_ID_CONFIG);

    private final String bootstrap;
    private final Map<String, Object> own;

    /** Throws IllegalArgumentException for a setting that is not the caller's to choose. */
    KafkaSettings(String bootstrap, Map<String, ?> own) {
        this.bootstrap = bootstrap;
        this.own = Map.copyOf(own);
        for (String name : own.keySet()) {
            if (NOT_A_CALLERS.contains(name)
                    || PRODUCER_FIXED.containsKey(name)
                    || CONSUMER_FIXED.containsKey(name)) {
                throw new IllegalArgumentException("the client sets " + name + " itself");
            }
        }
    }

    String bootstrap() {
        return bootstrap;
    }

    Map<String, Object> producer() {
        Map<String, Object> settings = settings(ProducerConfig.configNames());
        settings.putIfAbsent(ProducerConfig.DELIVERY_TIMEOUT_MS_CONFIG, GIVE_UP_MS);
        settings.putIfAbsent(ProducerConfig.MAX_BLOCK_MS_CONFIG, GIVE_UP_MS);
        settings.putIfAbsent(ProducerConfig.LINGER_MS_CONFIG, 0); // 5 since Kafka 4.0
        settings.putAll(PRODUCER_FIXED);
        return settings;
    }

    /** Returns how long the producer waits within a send; of settings that it has taken. */
    Duration longestSend() {
        Object millis = producer().get(ProducerConfig.MAX_BLOCK_MS_CONFIG);
        return Duration.ofMillis(Long.parseLong(millis.toString().trim()));
    }

    Map<String, Object> consumer() {
        Map<String, Object> settings = settings(ConsumerConfig.configNames());
        settings.putIfAbsent(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, FETCH_WAIT_MS);
        settings.putAll(CONSUMER_FIXED);
        return settings;
    }

    Map<String, Object> admin() {
        Map<String, Object> settings = settings(AdminClientConfig.configNames());
        settings.putIfAbsent(AdminClientConfig.DEFAULT_API_TIMEOUT_MS_CONFIG, GIVE_UP_MS);
        return settings;
    }

    /** Those that only another of the three clients knows are left out; others' are passed on. */
    private Map<String, Object> settings(Set<String> known) {
        Map<String, Object> settings = new HashMap<>();
        settings.put(CommonClientConfigs.REQUEST_TIMEOUT_MS_CONFIG, REQUEST_MS);
        own.forEach((name, value) -> {
            boolean others = ProducerConfig.configNames().contains(name)
                    || ConsumerConfig.configNames().contains(name)
                    || AdminClientConfig.configNames().contains(name);
            if (known.contains(name) || !others) {
                settings.put(name, value);
            }
        });
        settings.put(CommonClientConfigs.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        return settings;
    }
}

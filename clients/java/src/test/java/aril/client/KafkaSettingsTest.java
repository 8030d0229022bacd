package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** What the three Kafka clients are told. */
class KafkaSettingsTest {
    @Test
    void ownSettingsReachThoseThatKnowThem() {
        Map<String, Object> own = Map.of(
                "security.protocol", "SASL_SSL",
                "linger.ms", 20,
                "fetch.max.wait.ms", 9,
                "my.login.module.host", "x");
        KafkaSettings settings = new KafkaSettings("b:1", own);
        for (Map<String, Object> each :
                java.util.List.of(settings.producer(), settings.consumer(), settings.admin())) {
            assertEquals("SASL_SSL", each.get("security.protocol"));
            assertEquals("x", each.get("my.login.module.host"));
            assertEquals("b:1", each.get("bootstrap.servers"));
        }
        assertEquals(20, settings.producer().get("linger.ms"));
        assertEquals(9, settings.consumer().get("fetch.max.wait.ms"));
        assertFalse(settings.admin().containsKey("linger.ms"));
        assertFalse(settings.producer().containsKey("fetch.max.wait.ms"));
    }

    /** They would break what the client promises; to pass over them would hide that. */
    @ParameterizedTest
    @ValueSource(strings = {"acks", "group.id", "auto.offset.reset", "bootstrap.servers"})
    void someAreNotACallersToChoose(String name) {
        Map<String, Object> own = Map.of(name, "1");
        assertThrows(IllegalArgumentException.class, () -> new KafkaSettings("b:1", own));
    }

    @Test
    @Timeout(30)
    void nobodyThere() {
        Map<String, Object> hurried =
                Map.of("request.timeout.ms", 500, "default.api.timeout.ms", 1_000);
        ClientBuilder builder = ArilClient.builder("127.0.0.1:1", "acme").kafka(hurried);
        BrokerUnavailableException error =
                assertThrows(BrokerUnavailableException.class, builder::open);
        assertEquals("no broker answers at 127.0.0.1:1", error.getMessage());
    }

    @Test
    void settingsThatFitNot() {
        ClientBuilder builder = ArilClient.builder("127.0.0.1:1", "acme")
                .kafka(Map.of("security.protocol", "NONSENSE"));
        BrokerUnavailableException error =
                assertThrows(BrokerUnavailableException.class, builder::open);
        assertTrue(error.getMessage().contains("security.protocol"), error.getMessage());
    }
}

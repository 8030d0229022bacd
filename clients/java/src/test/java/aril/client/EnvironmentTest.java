package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** environments.json, and what Kafka's library is told of it. */
class EnvironmentTest {
    private static final Set<String> HAS = Set.of("key_password");
    @TempDir Path folder;

    static Stream<Arguments> vectors() {
        return Vectors.of("environments");
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("vectors")
    void vector(String name, JsonNode vector) {
        Map<String, String> environ = texts(vector.get("environ"));
        String tenant = vector.path("tenant").asText(null);
        Map<String, String> expect = texts(vector.get("expect"));
        String refused = vector.has("needs") && !HAS.contains(vector.get("needs").asText())
                ? vector.get("refused").asText()
                : expect.get("error");
        if (refused != null) {
            BadSettingException error = assertThrows(
                    BadSettingException.class, () -> new EnvironmentSettings(environ, tenant));
            assertTrue(
                    error.getMessage().contains(EnvironmentSettings.variable(refused)),
                    error.getMessage());
            return;
        }
        EnvironmentSettings found = new EnvironmentSettings(environ, tenant);
        expect.forEach((each, value) -> assertEquals(value, found.get(each), each));
        assertEquals(
                expect.containsKey("sasl_mechanism"), found.get("sasl_mechanism") != null);
    }

    private static Map<String, String> texts(JsonNode fields) {
        Map<String, String> texts = new HashMap<>();
        fields.properties()
                .forEach(each -> texts.put(each.getKey(), each.getValue().asText()));
        return texts;
    }

    @Test
    void whatTheLibraryIsTold() throws Exception {
        Path authorities = Files.writeString(folder.resolve("ca.pem"), "ca");
        Path both = Files.writeString(folder.resolve("both.pem"), "both");
        Map<String, Object> told = Environment.kafka(new EnvironmentSettings(
                Map.of(
                        "ARIL_SECURITY_PROTOCOL", "SASL_SSL",
                        "ARIL_SSL_CAFILE", authorities.toString(),
                        "ARIL_SSL_CERTFILE", both.toString(),
                        "ARIL_SSL_KEY_PASSWORD", "open",
                        "ARIL_SASL_USERNAME", "a \"user\"",
                        "ARIL_SASL_PASSWORD", "back\\slash"),
                "acme"));
        assertEquals(
                Map.of(
                        "security.protocol", "SASL_SSL",
                        "ssl.truststore.type", "PEM",
                        "ssl.truststore.certificates", "ca",
                        "ssl.keystore.type", "PEM",
                        "ssl.keystore.certificate.chain", "both",
                        "ssl.keystore.key", "both",
                        "ssl.key.password", "open",
                        "sasl.mechanism", "SCRAM-SHA-512",
                        "sasl.jaas.config",
                        "org.apache.kafka.common.security.scram.ScramLoginModule required"
                                + " username=\"a \\\"user\\\"\" password=\"back\\\\slash\";"),
                told);
    }

    @ParameterizedTest
    @ValueSource(strings = {"ARIL_SSL_CAFILE", "ARIL_SSL_CERTFILE"})
    void aFileThatIsNotThere(String name) {
        String none = folder.resolve("none.pem").toString();
        Map<String, String> environ = Map.of("ARIL_SECURITY_PROTOCOL", "SSL", name, none);
        BadSettingException error = assertThrows(
                BadSettingException.class, () -> Environment.builder(environ, "acme"));
        assertTrue(error.getMessage().startsWith(name + ": " + none));
    }

    @Test
    void aKeyThatIsNotThere() {
        String none = folder.resolve("none.key").toString();
        assertThrows(
                BadKeyException.class,
                () -> Environment.builder(Map.of("ARIL_KEY", none), "acme"));
    }
}

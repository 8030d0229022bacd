package aril.client;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;

/** What a client is made with, out of the settings that workers and clients share. */
final class Environment {
    private static final String PEM = "PEM";

    private Environment() {}

    /** Returns a builder that knows all that an environment says. Files are read here, once. */
    static ClientBuilder builder(Map<String, String> environ, String tenant) {
        EnvironmentSettings settings = new EnvironmentSettings(environ, tenant);
        ClientBuilder builder =
                new ClientBuilder(settings.get("bootstrap"), settings.get("tenant"))
                        .jobsTopic(settings.get("jobs_topic"))
                        .repliesPrefix(settings.get("replies_prefix"))
                        .kafka(kafka(settings));
        String key = settings.get("key");
        return key == null || key.isEmpty() ? builder : builder.signer(Signer.fromFile(Path.of(key)));
    }

    /** Returns what Kafka's library is told. */
    static Map<String, Object> kafka(EnvironmentSettings settings) {
        Map<String, Object> kafka = new HashMap<>();
        kafka.put("security.protocol", settings.get("security_protocol"));
        if (settings.tls()) {
            putTls(kafka, settings);
        }
        if (settings.sasl()) {
            String mechanism = settings.get("sasl_mechanism");
            String module = mechanism.equals("PLAIN")
                    ? "org.apache.kafka.common.security.plain.PlainLoginModule"
                    : "org.apache.kafka.common.security.scram.ScramLoginModule";
            kafka.put("sasl.mechanism", mechanism);
            kafka.put("sasl.jaas.config", module + " required"
                    + " username=" + quoted(settings.get("sasl_username"))
                    + " password=" + quoted(settings.get("sasl_password")) + ";");
        }
        return kafka;
    }

    private static void putTls(Map<String, Object> kafka, EnvironmentSettings settings) {
        if (settings.get("ssl_cafile") != null) {
            kafka.put("ssl.truststore.type", PEM);
            kafka.put("ssl.truststore.certificates", read(settings, "ssl_cafile"));
        }
        if (settings.get("ssl_certfile") != null) {
            String keyFile = settings.get("ssl_keyfile") == null ? "ssl_certfile" : "ssl_keyfile";
            kafka.put("ssl.keystore.type", PEM);
            kafka.put("ssl.keystore.certificate.chain", read(settings, "ssl_certfile"));
            kafka.put("ssl.keystore.key", read(settings, keyFile));
        }
        if (settings.get("ssl_key_password") != null) {
            kafka.put("ssl.key.password", settings.get("ssl_key_password"));
        }
    }

    /** Returns a text as the language of login modules has it. */
    private static String quoted(String text) {
        return "\"" + text.replace("\\", "\\\\").replace("\"", "\\\"") + "\"";
    }

    private static String read(EnvironmentSettings settings, String name) {
        String path = settings.get(name);
        try {
            return Files.readString(Path.of(path));
        } catch (IOException | InvalidPathException error) {
            throw EnvironmentSettings.bad(
                    EnvironmentSettings.variable(name) + ": " + path + " cannot be read");
        }
    }
}

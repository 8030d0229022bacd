package aril.client;

import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Pattern;

/**
 * What {@code ARIL_*} variables say, by the names that workers and the Python client read. What the
 * protocol or the mechanism would not look at is refused: somebody meant it.
 */
final class EnvironmentSettings {
    private static final List<String> TLS =
            List.of("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password");
    private static final List<String> USER = List.of("sasl_username", "sasl_password");
    private static final List<String> OIDC = List.of(
            "sasl_oidc_url",
            "sasl_oidc_client_id",
            "sasl_oidc_client_secret",
            "sasl_oidc_scope");
    private static final String MECHANISM = "sasl_mechanism";
    private static final String PROTOCOL = "security_protocol";
    private static final String PROVIDER = "sasl_token_provider";
    private static final String FILE = "sasl_token_file";
    private static final String BEARER = "OAUTHBEARER";
    private static final List<String> PROTOCOLS =
            List.of("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL");
    private static final List<String> MECHANISMS =
            List.of("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", BEARER);
    private static final Pattern JOBS_TOPIC = Pattern.compile("(?=.)[A-Za-z0-9._-]*\\*?");
    private static final Pattern REPLIES_PREFIX = Pattern.compile("[A-Za-z0-9._-]+\\.");

    private final Map<String, String> given = new HashMap<>();

    /**
     * Reads an environment.
     *
     * @param tenant goes before ARIL_TENANT; null: none is named
     * @throws BadSettingException if one of its variables is wrong
     */
    EnvironmentSettings(Map<String, String> environ, String tenant) {
        given.put("bootstrap", "localhost:9092");
        given.put("jobs_topic", "jobs");
        given.put("replies_prefix", "replies.");
        given.put(PROTOCOL, "PLAINTEXT");
        environ.forEach((name, value) -> {
            if (name.startsWith("ARIL_")) {
                given.put(name.substring("ARIL_".length()).toLowerCase(Locale.ROOT), value);
            }
        });
        if (tenant != null) {
            given.put("tenant", tenant);
        }
        checkNames();
        checkTls();
        checkSasl();
        given.computeIfPresent(
                "jobs_topic", (name, topic) -> topic.replace("*", given.get("tenant")));
    }

    /** Returns a setting by its variable's name in lower case, without ARIL_; null: not set. */
    String get(String name) {
        return given.get(name);
    }

    boolean tls() {
        return given.get(PROTOCOL).endsWith("SSL");
    }

    boolean sasl() {
        return given.get(PROTOCOL).startsWith("SASL");
    }

    static String variable(String name) {
        return "ARIL_" + name.toUpperCase(Locale.ROOT);
    }

    private void checkNames() {
        String tenant = given.getOrDefault("tenant", "");
        if (tenant.isEmpty()) {
            throw bad(variable("tenant") + " is not set, and no tenant was named");
        }
        if (!Limits.isTenant(tenant)) {
            throw bad(variable("tenant") + ": no tenant's name (lower case, digits, -)");
        }
        match("jobs_topic", JOBS_TOPIC, "a topic's name, or one that ends in *");
        match("replies_prefix", REPLIES_PREFIX, "a topic's name that ends in a dot");
        oneOf(PROTOCOL, PROTOCOLS);
    }

    private void checkTls() {
        if (!tls()) {
            refuse(TLS, said(PROTOCOL));
        }
        if (!given.containsKey("ssl_certfile")) {
            refuse(List.of("ssl_keyfile", "ssl_key_password"), "no " + variable("ssl_certfile"));
        }
    }

    private void checkSasl() {
        if (!sasl()) {
            for (List<String> names :
                    List.of(List.of(MECHANISM), USER, List.of(PROVIDER, FILE), OIDC)) {
                refuse(names, said(PROTOCOL));
            }
            return;
        }
        given.putIfAbsent(MECHANISM, "SCRAM-SHA-512");
        oneOf(MECHANISM, MECHANISMS);
        if (!given.get(MECHANISM).equals(BEARER)) {
            refuse(List.of(PROVIDER, FILE), said(MECHANISM));
            refuse(OIDC, said(MECHANISM));
            demand(USER, said(MECHANISM));
            return;
        }
        refuse(USER, said(MECHANISM));
        demand(List.of(PROVIDER), said(MECHANISM));
        if (given.get(PROVIDER).equals("file")) {
            refuse(OIDC, said(PROVIDER));
            demand(List.of(FILE), said(PROVIDER));
        }
        throw bad(said(PROVIDER) + ": this client has no provider of tokens; tell Kafka's library"
                + " of one by kafka(Map)");
    }

    private void match(String name, Pattern pattern, String form) {
        if (!pattern.matcher(given.get(name)).matches()) {
            throw bad(variable(name) + ": " + form);
        }
    }

    private void oneOf(String name, List<String> values) {
        if (!values.contains(given.get(name))) {
            throw bad(variable(name) + ": one of " + String.join(", ", values));
        }
    }

    private String said(String name) {
        return variable(name) + "=" + given.get(name);
    }

    private void refuse(List<String> names, String beside) {
        for (String name : names) {
            if (given.containsKey(name)) {
                throw bad(variable(name) + " is not looked at with " + beside
                        + ": leave one of them out");
            }
        }
    }

    private void demand(List<String> names, String by) {
        for (String name : names) {
            if (given.getOrDefault(name, "").isEmpty()) {
                throw bad(by + " needs " + variable(name));
            }
        }
    }

    static BadSettingException bad(String message) {
        return new BadSettingException(message);
    }
}

package aril.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.abort;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.Signature;
import java.security.spec.EdECPoint;
import java.security.spec.EdECPrivateKeySpec;
import java.security.spec.EdECPublicKeySpec;
import java.security.spec.NamedParameterSpec;
import java.math.BigInteger;
import java.time.Clock;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.HexFormat;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** signatures.json: what is signed and the header, byte for byte; what is bound by a signature. */
class SignatureVectorsTest {
    /** What only a worker does. */
    private static final Map<String, String> OF_A_WORKER = Map.of(
            "no header", "counting a record's headers",
            "two headers", "counting a record's headers",
            "empty header", "parsing a header",
            "upper case", "parsing a header",
            "leading zero", "parsing a header",
            "line end", "parsing a header",
            "version 2", "parsing a header",
            "another tenant", "looking up a key",
            "too old", "comparing times",
            "too fast", "comparing times");

    private static final JsonNode KEY = Vectors.file("signatures").get("key");

    static Stream<Arguments> vectors() {
        return Vectors.of("signatures");
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("vectors")
    void signatures(String name, JsonNode vector) throws Exception {
        if (OF_A_WORKER.containsKey(name)) {
            abort("not used: " + OF_A_WORKER.get(name) + " is a worker's");
        }
        byte[] value = Vectors.bytes(vector);
        JsonNode record = vector.get("record");
        String topic = record.get("topic").asText();
        int partition = record.get("partition").asInt();
        byte[] key = record.get("key").asText().getBytes(StandardCharsets.UTF_8);
        String header = vector.get("headers").get(0).get(1).asText();
        String[] parts = header.split("\\.");
        long time = Long.parseLong(parts[3]);
        byte[] message = Signer.message("acme", parts[2], topic, partition, key, time, value);
        boolean holds = vector.get("expect").has("signer");
        assertEquals(holds, verifies(message, HexFormat.of().parseHex(parts[4])));
        if (holds) {
            byte[] made = signer(time).header("acme", topic, partition, key, value);
            assertEquals(header, new String(made, StandardCharsets.US_ASCII));
            assertEquals("aril-signature", vector.get("headers").get(0).get(0).asText());
            assertArrayEquals(
                    HexFormat.of().parseHex(vector.get("signed").asText()), message);
        }
    }

    @Test
    void whatIsNotUsedIsThere() {
        Set<String> names =
                vectors().map(each -> (String) each.get()[0]).collect(Collectors.toSet());
        assertTrue(names.containsAll(OF_A_WORKER.keySet()));
    }

    private static Signer signer(long now) throws Exception {
        EdECPrivateKeySpec spec = new EdECPrivateKeySpec(
                NamedParameterSpec.ED25519, HexFormat.of().parseHex(KEY.get("private").asText()));
        return new Signer(
                KeyFactory.getInstance("Ed25519").generatePrivate(spec),
                KEY.get("key_id").asText(),
                Clock.fixed(Instant.ofEpochMilli(now), ZoneOffset.UTC));
    }

    private static boolean verifies(byte[] message, byte[] signature) throws Exception {
        byte[] encoded = HexFormat.of().parseHex(KEY.get("public").asText());
        boolean odd = (encoded[encoded.length - 1] & 0x80) != 0;
        encoded[encoded.length - 1] &= 0x7f;
        byte[] big = new byte[encoded.length];
        for (int at = 0; at < big.length; at++) {
            big[at] = encoded[encoded.length - 1 - at];
        }
        EdECPoint point = new EdECPoint(odd, new BigInteger(1, big));
        PublicKey key = KeyFactory.getInstance("Ed25519")
                .generatePublic(new EdECPublicKeySpec(NamedParameterSpec.ED25519, point));
        Signature verifier = Signature.getInstance("Ed25519");
        verifier.initVerify(key);
        verifier.update(message);
        return verifier.verify(signature);
    }
}

package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Bytes that nobody would write: read or refused, and nothing else. */
class HostileBytesTest {
    private static final int ROUNDS = 40_000;

    /** Vectors with some bytes changed, cut out or put in. */
    @Test
    void mutations() {
        List<byte[]> seeds = new ArrayList<>();
        for (String file : List.of("replies", "requests")) {
            for (JsonNode vector : Vectors.file(file).get("vectors")) {
                byte[] bytes = Vectors.bytes(vector);
                if (bytes.length > 0 && bytes.length < 5_000) {
                    seeds.add(bytes);
                }
            }
        }
        Random random = new Random(1);
        int read = 0;
        for (int round = 0; round < ROUNDS; round++) {
            byte[] bytes = seeds.get(random.nextInt(seeds.size())).clone();
            for (int change = random.nextInt(4); change >= 0; change--) {
                bytes[random.nextInt(bytes.length)] = (byte) random.nextInt();
            }
            if (random.nextInt(4) == 0) {
                bytes = java.util.Arrays.copyOf(bytes, random.nextInt(bytes.length + 9));
            }
            try {
                Reply.decode(bytes);
                read++;
            } catch (ReplyUnreadableException error) {
                assertTrue(error.getMessage().length() < 400);
            }
        }
        assertTrue(read > ROUNDS / 100, "some changes do not matter: " + read);
    }

    private static byte[] json(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "{\"v\":1,\"kind\":\"note\"",
        "{\"v\":1,\"v\":1,\"kind\":\"note\"}",
        "{\"v\":1,\"kind\":\"note\",\"x\":NaN}",
        "{\"v\":1,\"kind\":\"note\",\"x\":01}",
        "{\"v\":1,\"kind\":\"note\",\"x\":\"\\ud800\"}",
        "{\"v\":1,\"kind\":\"note\",\"x\":18446744073709551616}",
        "{\"v\":1,\"kind\":\"note\",\"x\":-9223372036854775809}",
        "{\"v\":1,\"kind\":\"note\"} {}",
        "{\"v\":1,\"kind\":\"note\",}",
        "{\"v\":1,\"kind\":\"note\"}\u0000"
    })
    void brokenJson(String text) {
        ReplyUnreadableException error =
                assertThrows(ReplyUnreadableException.class, () -> Reply.decode(json(text)));
        assertEquals(ErrorCode.INVALID_JOB, error.code());
    }

    @ParameterizedTest
    @ValueSource(strings = {
        "\n {\"v\":1,\"kind\":\"note\"}\r\t ",
        "{\"v\":1,\"kind\":\"note\",\"x\":18446744073709551615}",
        "{\"v\":1,\"kind\":\"note\",\"x\":-9223372036854775808}",
        "{\"v\":1,\"kind\":\"note\",\"x\":\"\\ud83c\\udf4e\"}"
    })
    void soundJson(String text) {
        assertInstanceOf(Reply.Unknown.class, Reply.decode(json(text)));
    }

    /** A version that is no integer is another version. */
    @Test
    void aRealVersion() {
        ReplyUnreadableException error = assertThrows(
                ReplyUnreadableException.class,
                () -> Reply.decode(json("{\"v\":1.0,\"kind\":\"note\"}")));
        assertEquals(ErrorCode.UNSUPPORTED_VERSION, error.code());
    }
}

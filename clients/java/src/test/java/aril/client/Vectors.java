package aril.client;

import static org.junit.jupiter.api.Assertions.assertFalse;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.nio.file.Path;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.params.provider.Arguments;

/** The wire contract's vectors, and how their values compare with ours. */
final class Vectors {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private Vectors() {}

    static JsonNode file(String name) {
        try {
            Path folder = Path.of(System.getProperty("aril.vectors"));
            return MAPPER.readTree(folder.resolve(name + ".json").toFile());
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    /** Returns the vectors of a file, each with its name, as arguments of a test. */
    static Stream<Arguments> of(String file) {
        JsonNode vectors = file(file).get("vectors");
        assertFalse(vectors.isEmpty());
        return StreamSupport.stream(vectors.spliterator(), false)
                .map(each -> Arguments.of(
                        each.get(each.has("name") ? "name" : "meaning").asText(), each));
    }

    /** Returns a vector's bytes: {@code hex}, then {@code repeat.hex} so many times. */
    static byte[] bytes(JsonNode vector) {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        bytes.writeBytes(HexFormat.of().parseHex(vector.get("hex").asText()));
        if (vector.has("repeat")) {
            byte[] each = HexFormat.of().parseHex(vector.get("repeat").get("hex").asText());
            for (int times = vector.get("repeat").get("times").asInt(); times > 0; times--) {
                bytes.writeBytes(each);
            }
        }
        return bytes.toByteArray();
    }

    /** Returns a value in which numbers are equal that mean the same, in a JSON node or of ours. */
    static Object plain(Object value) {
        if (value instanceof JsonNode node) {
            return plain(MAPPER.convertValue(node, Object.class));
        }
        if (value instanceof Number number) {
            return new BigDecimal(number.toString()).stripTrailingZeros();
        }
        if (value instanceof List<?> list) {
            return list.stream().map(Vectors::plain).toList();
        }
        if (value instanceof Map<?, ?> map) {
            Map<Object, Object> copy = new LinkedHashMap<>();
            map.forEach((key, each) -> copy.put(key, plain(each)));
            return copy;
        }
        return value;
    }
}

package aril.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** partitions.json: hash and partitions are the vector's. */
class PartitionVectorsTest {
    static Stream<Arguments> vectors() {
        return Vectors.of("partitions");
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("vectors")
    void partitions(String name, JsonNode vector) {
        byte[] key = vector.get("job").asText().getBytes(StandardCharsets.UTF_8);
        assertArrayEquals(Vectors.bytes(vector), key);
        assertEquals(vector.get("murmur2_signed").asInt(), Murmur2.hash(key));
        vector.get("partition_of").properties().forEach(each -> assertEquals(
                each.getValue().asInt(),
                Murmur2.partition(key, Integer.parseInt(each.getKey()))));
    }
}

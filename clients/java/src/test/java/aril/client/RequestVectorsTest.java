package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.abort;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * requests.json from a producer's side: what is accepted can be said, and is written as the vector
 * means it; what breaks a bound is refused before it is sent; what is no record is not read.
 */
class RequestVectorsTest {
    /** Refusals of what this client's types cannot say, so that no code here could meet it. */
    private static final Map<String, String> CANNOT_BE_SAID = Map.ofEntries(
            Map.entry("version 2", "v is written by the client"),
            Map.entry("version true", "v is written by the client"),
            Map.entry("no version", "v is written by the client"),
            Map.entry("unknown kind", "kind is written by the client"),
            Map.entry("kind not text", "kind is written by the client"),
            Map.entry("no prompt", "a Job has one Prompt"),
            Map.entry("two prompts", "a Job has one Prompt"),
            Map.entry("tools without messages", "tools are a Conversation's"),
            Map.entry("prompt of bytes", "of another type"),
            Map.entry("number in text", "of another type"),
            Map.entry("boolean for a number", "of another type"),
            Map.entry("real for a whole number", "of another type"),
            Map.entry("JSON with a real number for a whole one", "of another type"),
            Map.entry("unknown role", "roles are an enum"),
            Map.entry("a part that is no text", "parts are texts"),
            Map.entry("metadata value not text", "of another type"),
            Map.entry("bias of a token that is no number", "of another type"),
            Map.entry("sampling not a map", "of another type"),
            Map.entry("one stop string, bare", "of another type"),
            Map.entry("two answers", "n is always 1 and left out"),
            Map.entry("two forms for the answer", "a Sampling has one AnswerForm"),
            Map.entry("a form that is none", "forms are a sealed type"),
            Map.entry("a schema that is not there", "forms are a sealed type"),
            Map.entry("strict with a field that is none", "jobs have no unknown fields"));

    /** A bad tenant is refused where the client is made. */
    private static final Set<String> OF_THE_CLIENT = Set.of(
            "tenant as a path",
            "tenant as a topic trick",
            "tenant with a line end",
            "tenant shared");

    private static final Set<String> NO_TENANT = Set.of("no tenant");

    static Stream<Arguments> vectors() {
        return Vectors.of("requests");
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("vectors")
    void requests(String name, JsonNode vector) {
        JsonNode expect = vector.get("expect");
        byte[] bytes = Vectors.bytes(vector);
        if (!expect.has("error")) {
            Map<String, Object> map = RecordReader.read(bytes);
            assertEquals(meant(expect), Vectors.plain(written(map)));
            return;
        }
        Map<String, Object> map;
        try {
            map = RecordReader.read(bytes);
        } catch (ReplyUnreadableException error) { // no record, of a job or of a reply
            assertEquals(expect.get("error").get("code").asText(), error.code().text());
            return;
        }
        if (CANNOT_BE_SAID.containsKey(name)) {
            abort("not used: " + CANNOT_BE_SAID.get(name));
        }
        if (NO_TENANT.contains(name)) {
            assertThrows(NullPointerException.class, () -> ArilClient.builder("", null));
        } else if (OF_THE_CLIENT.contains(name)) {
            String tenant = (String) map.get("tenant");
            assertThrows(
                    IllegalArgumentException.class, () -> ArilClient.builder("", tenant));
        } else {
            refused(expect.get("error"), map);
        }
    }

    private static void refused(JsonNode expect, Map<String, Object> map) {
        InvalidJobException error =
                assertThrows(InvalidJobException.class, () -> JobMaker.make(map));
        assertEquals(expect.get("code").asText(), error.code().text());
        if (expect.has("limit")) {
            assertEquals(Vectors.plain(expect.get("limit")), Vectors.plain(error.limit()));
            assertEquals(Vectors.plain(expect.get("given")), Vectors.plain(error.given()));
        }
    }

    private static Map<String, Object> written(Map<String, Object> map) {
        String id = (String) map.get("id");
        String tenant = (String) map.get("tenant");
        byte[] bytes = map.get("kind").equals("cancel")
                ? RequestEncoder.encodeCancel(id, tenant)
                : RequestEncoder.encode(JobMaker.make(map), tenant, (Long) map.get("reply_from"));
        return RecordReader.read(bytes);
    }

    /** What the vector means, but a message of one part is its text. */
    @SuppressWarnings("unchecked")
    private static Object meant(JsonNode expect) {
        String kind = expect.fieldNames().next();
        Map<String, Object> map = new LinkedHashMap<>();
        map.put("v", Vectors.plain(1));
        map.put("kind", kind);
        map.putAll((Map<String, Object>) Vectors.plain(expect.get(kind)));
        if (map.get("messages") instanceof List<?> messages) {
            for (Object each : messages) {
                Map<String, Object> message = (Map<String, Object>) each;
                if (message.get("content") instanceof List<?> parts && parts.size() == 1) {
                    message.put("content", ((Map<String, Object>) parts.get(0)).get("text"));
                }
            }
        }
        return map;
    }

    @Test
    void whatIsNotUsedIsThere() {
        Set<String> names =
                vectors().map(each -> (String) each.get()[0]).collect(Collectors.toSet());
        Set<String> named = new HashSet<>(CANNOT_BE_SAID.keySet());
        named.addAll(OF_THE_CLIENT);
        named.addAll(NO_TENANT);
        assertTrue(names.containsAll(named), () -> "no vectors: " + minus(named, names));
    }

    private static Set<String> minus(Set<String> all, Set<String> some) {
        Set<String> rest = new HashSet<>(all);
        rest.removeAll(some);
        return rest;
    }
}

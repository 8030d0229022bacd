package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.apache.kafka.common.errors.SerializationException;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** replies.json: each is read, skipped or refused as its vector says, with every field. */
class ReplyVectorsTest {
    static Stream<Arguments> vectors() {
        return Vectors.of("replies");
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("vectors")
    void replies(String name, JsonNode vector) {
        JsonNode expect = vector.get("expect");
        byte[] bytes = Vectors.bytes(vector);
        try (ReplyDeserializer deserializer = new ReplyDeserializer()) {
            if (expect.has("error")) {
                SerializationException error = assertThrows(
                        SerializationException.class, () -> deserializer.deserialize("t", bytes));
                ReplyUnreadableException cause = (ReplyUnreadableException) error.getCause();
                assertEquals(expect.get("error").get("code").asText(), cause.code().text());
                return;
            }
            Reply reply = deserializer.deserialize("t", bytes);
            if (expect.has("skipped")) {
                assertFalse(reply instanceof Reply.Written);
                Object about = reply instanceof Reply.Conflict told && told.job().equals("j1")
                        ? placed(told)
                        : null;
                Object conflict = expect.hasNonNull("conflict") ? expect.get("conflict") : null;
                assertEquals(Vectors.plain(conflict), Vectors.plain(about));
                Object forJ1 = reply instanceof Reply.Redirect there && there.job().equals("j1")
                        ? (Object) there.replyFrom()
                        : null;
                Object wanted = expect.hasNonNull("redirect") ? expect.get("redirect") : null;
                assertEquals(Vectors.plain(wanted), Vectors.plain(forJ1));
            } else {
                assertEquals(
                        Vectors.plain(expect.get("record")), Vectors.plain(described(reply)));
            }
        }
    }

    private static Map<String, Object> placed(Reply.Conflict told) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("sha256", told.sha256());
        fields.put("reply_from", told.replyFrom());
        return fields;
    }

    /** Returns a record's fields as the vectors write them: those without a value left out. */
    private static Map<String, Object> described(Reply reply) {
        Reply.Written written = (Reply.Written) reply;
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("job", written.job());
        fields.put("epoch", List.of(written.epoch().generation(), written.epoch().attempt()));
        fields.put("worker", written.worker());
        if (reply instanceof Reply.Claim claim) {
            fields.put("kind", "claim");
            putIf(fields, "alone", claim.alone() ? true : null);
            putIf(fields, "base_digest", claim.baseDigest());
        } else if (reply instanceof Reply.Release) {
            fields.put("kind", "release");
        } else if (reply instanceof Reply.Tokens tokens) {
            describe(fields, tokens);
        } else if (reply instanceof Reply.Done done) {
            describe(fields, done.event());
        } else {
            describe(fields, ((Reply.Failed) reply).event());
        }
        return fields;
    }

    private static void describe(Map<String, Object> fields, Reply.Tokens tokens) {
        fields.put("kind", "tokens");
        fields.put("index", tokens.event().index());
        fields.put("ids", tokens.event().ids());
        fields.put("text", tokens.event().text());
        List<Object> rows = new ArrayList<>();
        tokens.event().logprobs().forEach(row -> rows.add(numbers(row)));
        putIf(fields, "logprobs", rows.isEmpty() ? null : rows);
        putIf(fields, "base_digest", tokens.baseDigest());
    }

    private static List<Number> numbers(TokenLogprobs row) {
        List<Number> numbers = new ArrayList<>();
        numbers.add(row.chosen());
        row.top().forEach(each -> numbers.addAll(List.of(each.id(), each.logprob())));
        return numbers;
    }

    private static void describe(Map<String, Object> fields, Event.Done done) {
        fields.put("kind", "done");
        fields.put("index", done.index());
        fields.put("text", done.text());
        fields.put("finish_reason", done.finishReason().name().toLowerCase(java.util.Locale.ROOT));
        fields.put("usage", Map.of(
                "prompt_tokens", done.usage().promptTokens(),
                "completion_tokens", done.usage().completionTokens()));
        fields.put("adapter", done.adapter());
        fields.put("digest", done.digest());
        if (done.activation() != null) {
            fields.put("adapter_active_from", done.activation().start());
        }
        List<Object> adapters = new ArrayList<>();
        done.adapters().forEach(each -> adapters.add(Map.of(
                "name", each.name(), "digest", each.digest(), "weight", each.weight())));
        putIf(fields, "adapters", adapters.isEmpty() ? null : adapters);
        fields.put("base", done.base());
        putIf(fields, "base_digest", done.baseDigest());
        putIf(fields, "earlier_bases", done.earlierBases().isEmpty() ? null : done.earlierBases());
        fields.put("seed", done.seed());
        fields.put("timings", Map.of(
                "queue_ms", done.timings().queueMs(),
                "ttft_ms", done.timings().ttftMs(),
                "total_ms", done.timings().totalMs()));
        if (done.promptLogprobs() != null) {
            List<Number> numbers = new ArrayList<>();
            done.promptLogprobs().rows().forEach(row -> numbers.addAll(numbers(row)));
            fields.put(
                    "prompt_logprobs",
                    Map.of("top", done.promptLogprobs().top(), "numbers", numbers));
        }
        fields.put("metadata", done.metadata());
    }

    private static void describe(Map<String, Object> fields, Event.Failed failed) {
        fields.put("kind", "error");
        fields.put("index", failed.index());
        fields.put("code", failed.code().text());
        fields.put("message", failed.message());
        fields.put("retryable", failed.retryable());
        putIf(fields, "limit", failed.limit());
        putIf(fields, "given", failed.given());
        putIf(fields, "retry_after_ms", failed.retryAfterMs());
        fields.put("metadata", failed.metadata());
    }

    private static void putIf(Map<String, Object> fields, String name, Object value) {
        if (value != null) {
            fields.put(name, value);
        }
    }
}

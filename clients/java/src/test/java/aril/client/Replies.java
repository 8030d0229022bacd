package aril.client;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Records as workers write them. */
final class Replies {
    private Replies() {}

    static byte[] tokens(String job, int index, String text) {
        return tokens(job, index, text, 1);
    }

    /** One token a record; {@code generation} is the epoch's. */
    static byte[] tokens(String job, int index, String text, int generation) {
        Map<String, Object> fields = head("tokens", job, generation);
        fields.put("index", index);
        fields.put("ids", List.of(index + 100));
        fields.put("text", text);
        return RecordWriter.write(fields);
    }

    static byte[] claim(String job, int generation) {
        return RecordWriter.write(head("claim", job, generation));
    }

    static byte[] done(String job, int index) {
        Map<String, Object> fields = head("done", job, 1);
        fields.put("index", index);
        fields.put("text", "");
        fields.put("finish_reason", "stop");
        fields.put("usage", Map.of("prompt_tokens", 1, "completion_tokens", index));
        fields.put("adapter", null);
        fields.put("digest", null);
        fields.put("base", "tiny");
        fields.put("seed", 7);
        fields.put("timings", Map.of("queue_ms", 1, "ttft_ms", 2.5, "total_ms", 3));
        return RecordWriter.write(fields);
    }

    static byte[] error(String job, int index, String code, Object limit, Object given) {
        Map<String, Object> fields = head("error", job, 1);
        fields.put("index", index);
        fields.put("code", code);
        fields.put("message", "it is so");
        fields.put("retryable", false);
        fields.put("limit", limit);
        fields.put("given", given);
        return RecordWriter.write(fields);
    }

    static byte[] redirect(String job, long replyFrom) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("v", 1);
        fields.put("kind", "redirect");
        fields.put("job", job);
        fields.put("reply_from", replyFrom);
        return RecordWriter.write(fields);
    }

    static byte[] conflict(String job, String sha256, Long replyFrom) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("v", 1);
        fields.put("kind", "conflict");
        fields.put("job", job);
        fields.put("sha256", sha256);
        fields.put("reply_from", replyFrom);
        return RecordWriter.write(fields);
    }

    /** A whole answer, a record a text. */
    static List<byte[]> answer(String job, String... texts) {
        List<byte[]> records = new ArrayList<>();
        for (String text : texts) {
            records.add(tokens(job, records.size(), text));
        }
        records.add(done(job, texts.length));
        return records;
    }

    private static Map<String, Object> head(String kind, String job, int generation) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("v", 1);
        fields.put("kind", kind);
        fields.put("job", job);
        fields.put("epoch", List.of(generation, 1));
        fields.put("worker", "w" + generation);
        return fields;
    }
}

package aril.client;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** A reply's value to the record that it is; schemas/README.md says what each field may hold. */
final class ReplyDecoder {
    private static final String LOGPROBS = "logprobs";

    private ReplyDecoder() {}

    /** See {@link Reply#decode}. */
    static Reply decode(byte[] value) {
        Fields fields = new Fields(RecordReader.read(value));
        if (!(fields.get("v") instanceof Long version && version == Limits.VERSION)) {
            String told = "v: this client reads version " + Limits.VERSION;
            throw new ReplyUnreadableException(ErrorCode.UNSUPPORTED_VERSION, told);
        }
        if (!(fields.get("kind") instanceof String kind)) {
            throw Fields.wrong("kind");
        }
        return switch (kind) {
            case "claim" -> claim(fields);
            case "release" -> new Reply.Release(job(fields), epoch(fields), worker(fields));
            case "tokens" -> tokens(fields);
            case "done" ->
                    new Reply.Done(job(fields), epoch(fields), worker(fields), done(fields));
            case "error" ->
                    new Reply.Failed(job(fields), epoch(fields), worker(fields), failed(fields));
            case "redirect" -> redirect(fields);
            case "conflict" -> conflict(fields);
            default -> new Reply.Unknown(kind);
        };
    }

    private static Reply claim(Fields fields) {
        return new Reply.Claim(
                job(fields),
                epoch(fields),
                worker(fields),
                fields.has("alone") && fields.flag("alone"),
                baseDigest(fields));
    }

    private static Reply tokens(Fields fields) {
        List<Integer> ids = new ArrayList<>();
        for (Object id : fields.list("ids", 1, Limits.TOKENS)) {
            ids.add((int) Fields.integer("ids", id, 0, Integer.MAX_VALUE));
        }
        List<TokenLogprobs> rows = new ArrayList<>();
        if (!fields.isNil(LOGPROBS)) {
            for (Object row : fields.list(LOGPROBS, ids.size(), ids.size())) {
                rows.add(logprobs(row));
            }
        }
        return new Reply.Tokens(
                job(fields),
                epoch(fields),
                worker(fields),
                new Event.Tokens(fields.index("index"), ids, replyText(fields), rows),
                baseDigest(fields));
    }

    private static Event.Done done(Fields fields) {
        Fields usage = fields.map("usage");
        Fields timings = fields.map("timings");
        return new Event.Done(
                fields.index("index"),
                replyText(fields),
                finishReason(fields),
                new Usage(usage.index("prompt_tokens"), usage.index("completion_tokens")),
                fields.optionalText("adapter", Limits.REPLY_NAME_CHARS),
                fields.optionalText("digest", Limits.REPLY_NAME_CHARS),
                activation(fields),
                adapters(fields),
                fields.text("base", Limits.REPLY_NAME_CHARS),
                baseDigest(fields),
                earlierBases(fields),
                fields.integer("seed", 0, Long.MAX_VALUE),
                new Timings(
                        timings.milliseconds("queue_ms"),
                        timings.milliseconds("ttft_ms"),
                        timings.milliseconds("total_ms")),
                promptLogprobs(fields),
                metadata(fields));
    }

    private static Event.Failed failed(Fields fields) {
        String text = fields.text("code", Limits.REPLY_NAME_CHARS);
        ErrorCode code = ErrorCode.of(text);
        if (code == null) { // the set is closed; told, so that a newer service can be told apart
            throw RecordReader.malformed("code: '" + text + "' is none of version 1");
        }
        Object given = fields.get("given");
        if (given instanceof String) {
            Fields.text("given", given, Limits.GIVEN_CHARS);
        } else if (given != null) {
            Fields.number("given", given);
        }
        return new Event.Failed(
                fields.index("index"),
                code,
                fields.text("message", Limits.MESSAGE_CHARS),
                fields.flag("retryable"),
                fields.isNil("limit") ? null : Fields.number("limit", fields.get("limit")),
                given,
                fields.isNil("retry_after_ms")
                        ? null
                        : (Long) fields.integer("retry_after_ms", 0, Limits.RETRY_MS),
                metadata(fields));
    }

    /** One that leads nowhere is passed over like any kind that is not known. */
    private static Reply redirect(Fields fields) {
        return isAboutAJob(fields) && isOffset(fields.get("reply_from"))
                ? new Reply.Redirect((String) fields.get("job"), (Long) fields.get("reply_from"))
                : new Reply.Unknown("redirect");
    }

    /** Likewise. */
    private static Reply conflict(Fields fields) {
        Object place = fields.get("reply_from");
        boolean valid = isAboutAJob(fields)
                && fields.get("sha256") instanceof String hash
                && Sha256.HEX.matcher(hash).matches()
                && (place == null || isOffset(place));
        return valid
                ? new Reply.Conflict(
                        (String) fields.get("job"), (String) fields.get("sha256"), (Long) place)
                : new Reply.Unknown("conflict");
    }

    private static boolean isAboutAJob(Fields fields) {
        return fields.get("job") instanceof String job && Limits.JOB_ID.matcher(job).matches();
    }

    private static boolean isOffset(Object value) {
        return value instanceof Long offset && offset >= 0;
    }

    private static String job(Fields fields) {
        return fields.name("job", Limits.JOB_ID);
    }

    private static String worker(Fields fields) {
        return fields.name("worker", Limits.WORKER);
    }

    private static Epoch epoch(Fields fields) {
        List<?> parts = fields.list("epoch", 2, 2);
        return new Epoch(
                Fields.integer("epoch", parts.get(0), 0, Limits.EPOCH_PART),
                Fields.integer("epoch", parts.get(1), 1, Limits.EPOCH_PART));
    }

    private static String baseDigest(Fields fields) {
        return fields.optionalText("base_digest", Limits.REPLY_NAME_CHARS);
    }

    private static String replyText(Fields fields) {
        return fields.text("text", Limits.REPLY_CHARS);
    }

    private static FinishReason finishReason(Fields fields) {
        if ("stop".equals(fields.get("finish_reason"))) {
            return FinishReason.STOP;
        }
        if ("length".equals(fields.get("finish_reason"))) {
            return FinishReason.LENGTH;
        }
        throw Fields.wrong("finish_reason");
    }

    private static Activation activation(Fields fields) {
        String name = "adapter_active_from";
        if (!fields.has(name)) {
            return null;
        }
        return new Activation(fields.isNil(name) ? null : (Integer) fields.index(name));
    }

    private static List<MixedAdapter> adapters(Fields fields) {
        String name = "adapters";
        List<MixedAdapter> adapters = new ArrayList<>();
        if (fields.has(name)) {
            for (Object each : fields.list(name, 1, Limits.MIXED_ADAPTERS)) {
                Fields row = Fields.map(name, each);
                adapters.add(new MixedAdapter(
                        row.text("name", Limits.REPLY_NAME_CHARS),
                        row.text("digest", Limits.REPLY_NAME_CHARS),
                        Fields.number("weight", row.get("weight")).doubleValue()));
            }
        }
        return adapters;
    }

    private static List<String> earlierBases(Fields fields) {
        String name = "earlier_bases";
        List<String> bases = new ArrayList<>();
        if (fields.has(name)) {
            for (Object base : fields.list(name, 0, Limits.EARLIER_BASES)) {
                bases.add(Fields.text(name, base, Limits.REPLY_NAME_CHARS));
            }
        }
        return bases;
    }

    private static Map<String, String> metadata(Fields fields) {
        String name = "metadata";
        Map<String, String> metadata = new HashMap<>();
        if (fields.has(name)) {
            Map<String, Object> told = fields.map(name).all();
            if (told.size() > Limits.METADATA) {
                throw Fields.wrong(name);
            }
            told.forEach((key, value) -> metadata.put(
                    Fields.text(name, key, Limits.SHORT_CHARS),
                    Fields.text(name, value, Limits.LONG_CHARS)));
        }
        return metadata;
    }

    private static PromptLogprobs promptLogprobs(Fields fields) {
        String name = "prompt_logprobs";
        if (fields.isNil(name)) {
            return null;
        }
        Fields told = fields.map(name);
        int top = (int) told.integer("top", 0, Limits.LOGPROBS);
        List<?> numbers = told.list("numbers", 0, Limits.PROMPT_NUMBERS);
        int width = 1 + 2 * top;
        if (numbers.size() % width != 0) {
            throw Fields.wrong(name);
        }
        List<TokenLogprobs> rows = new ArrayList<>();
        for (int at = 0; at < numbers.size(); at += width) {
            rows.add(logprobs(numbers.subList(at, at + width)));
        }
        return new PromptLogprobs(top, rows);
    }

    private static TokenLogprobs logprobs(Object told) {
        if (!(told instanceof List<?> row
                && row.size() % 2 == 1
                && row.size() <= 1 + 2 * Limits.LOGPROBS)) {
            throw Fields.wrong(LOGPROBS);
        }
        List<TokenLogprobs.Alternative> top = new ArrayList<>();
        for (int at = 1; at < row.size(); at += 2) {
            top.add(new TokenLogprobs.Alternative(
                    (int) Fields.integer(LOGPROBS, row.get(at), 0, Integer.MAX_VALUE),
                    Fields.number(LOGPROBS, row.get(at + 1)).doubleValue()));
        }
        return new TokenLogprobs(Fields.number(LOGPROBS, row.get(0)).doubleValue(), top);
    }
}

package aril.client;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;

/** Jobs and cancels as records of the jobs topic. Fields with their default are left out. */
final class RequestEncoder {
    private RequestEncoder() {}

    /** Returns the record's value; {@code replyFrom} is null only in tests. */
    static byte[] encode(Job job, String tenant, Long replyFrom) {
        return RecordWriter.write(fields(job, tenant, replyFrom));
    }

    static byte[] encodeCancel(String job, String tenant) {
        return RecordWriter.write(head("cancel", job, tenant));
    }

    static Map<String, Object> fields(Job job, String tenant, Long replyFrom) {
        Map<String, Object> fields = head("job", job.id(), tenant);
        put(fields, "adapter", job.adapter(), null);
        put(fields, "adapters", adapters(job.adapters()), List.of());
        put(fields, "adapter_scale", job.adapterScale(), 1.0);
        putPrompt(fields, job.prompt());
        put(fields, "sampling", sampling(job.sampling()), Map.of());
        put(fields, "priority", job.priority(), 0);
        put(fields, "deadline_ms", job.deadline() == null ? null : job.deadline().toMillis(), null);
        put(fields, "reply_partition", job.replyPartition(), null);
        put(fields, "reply_from", replyFrom, null);
        put(fields, "metadata", job.metadata(), Map.of());
        put(fields, "strict", job.strict(), false);
        return fields;
    }

    private static Map<String, Object> head(String kind, String job, String tenant) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("v", Limits.VERSION);
        fields.put("kind", kind);
        fields.put("id", job);
        fields.put("tenant", tenant);
        return fields;
    }

    private static void put(Map<String, Object> fields, String name, Object value, Object usual) {
        if (!Objects.equals(value, usual)) {
            fields.put(name, value);
        }
    }

    private static List<Object> adapters(List<WeightedAdapter> adapters) {
        List<Object> rows = new ArrayList<>();
        for (WeightedAdapter each : adapters) {
            Map<String, Object> row = new LinkedHashMap<>();
            row.put("name", each.name());
            put(row, "weight", each.weight(), 1.0);
            rows.add(row);
        }
        return rows;
    }

    private static void putPrompt(Map<String, Object> fields, Prompt prompt) {
        if (prompt instanceof Prompt.Text text) {
            fields.put("prompt", text.text());
        } else if (prompt instanceof Prompt.TokenIds tokens) {
            fields.put("token_ids", tokens.ids());
        } else if (prompt instanceof Prompt.Conversation told) {
            fields.put("messages", told.messages().stream().map(RequestEncoder::message).toList());
            put(fields, "tools", told.tools(), List.of());
            put(fields, "add_generation_prompt", told.addGenerationPrompt(), true);
            put(fields, "continue_final_message", told.continueFinalMessage(), false);
            put(fields, "chat_template_kwargs", told.templateVariables(), Map.of());
        }
    }

    private static Map<String, Object> message(Message message) {
        Map<String, Object> fields = new LinkedHashMap<>();
        fields.put("role", message.role().name().toLowerCase(Locale.ROOT));
        List<String> parts = message.content();
        if (parts.size() == 1) {
            fields.put("content", parts.get(0));
        } else if (!parts.isEmpty()) {
            fields.put("content", parts.stream().map(RequestEncoder::part).toList());
        }
        put(fields, "name", message.name(), null);
        put(fields, "tool_calls", message.toolCalls(), List.of());
        put(fields, "tool_call_id", message.toolCallId(), null);
        return fields;
    }

    private static Map<String, Object> part(String text) {
        Map<String, Object> part = new LinkedHashMap<>();
        part.put("type", "text");
        part.put("text", text);
        return part;
    }

    private static Map<String, Object> sampling(Sampling sampling) {
        Map<String, Object> fields = new LinkedHashMap<>();
        put(fields, "max_tokens", sampling.maxTokens(), null);
        put(fields, "min_tokens", sampling.minTokens(), 0);
        put(fields, "temperature", sampling.temperature(), 1.0);
        put(fields, "top_p", sampling.topP(), 1.0);
        put(fields, "top_k", sampling.topK(), 0);
        put(fields, "min_p", sampling.minP(), 0.0);
        put(fields, "repetition_penalty", sampling.repetitionPenalty(), 1.0);
        put(fields, "presence_penalty", sampling.presencePenalty(), 0.0);
        put(fields, "frequency_penalty", sampling.frequencyPenalty(), 0.0);
        put(fields, "seed", sampling.seed(), null);
        put(fields, "stop", sampling.stop(), List.of());
        put(fields, "stop_token_ids", sampling.stopTokenIds(), List.of());
        put(fields, "ignore_eos", sampling.ignoreEos(), false);
        Map<String, Object> biases = new LinkedHashMap<>();
        sampling.logitBias().forEach((id, bias) -> biases.put(id.toString(), bias));
        put(fields, "logit_bias", biases, Map.of());
        put(fields, "logprobs", sampling.logprobs(), null);
        put(fields, "prompt_logprobs", sampling.promptLogprobs(), null);
        putForm(fields, sampling.form());
        return fields;
    }

    private static void putForm(Map<String, Object> fields, AnswerForm form) {
        if (form instanceof AnswerForm.Regex regex) {
            fields.put("regex", regex.pattern());
        } else if (form instanceof AnswerForm.Choice choice) {
            fields.put("choice", choice.of());
        } else if (form instanceof AnswerForm.Grammar grammar) {
            fields.put("grammar", grammar.lark());
        } else if (form instanceof AnswerForm.JsonObject) {
            fields.put("response_format", Map.of("type", "json_object"));
        } else if (form instanceof AnswerForm.JsonSchema schema) {
            Map<String, Object> told = new LinkedHashMap<>();
            put(told, "name", schema.name(), null);
            put(told, "description", schema.description(), null);
            told.put("schema", schema.schema());
            put(told, "strict", schema.strict(), null);
            Map<String, Object> format = new LinkedHashMap<>();
            format.put("type", "json_schema");
            format.put("json_schema", told);
            fields.put("response_format", format);
        }
    }
}

package aril.client;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** A job's map, as the vectors have it, to the typed job that a program would have made. */
@SuppressWarnings("unchecked")
final class JobMaker {
    private JobMaker() {}

    static Job make(Map<String, Object> map) {
        List<WeightedAdapter> adapters = new ArrayList<>();
        if (map.get("adapters") != null) {
            for (Map<String, Object> each : (List<Map<String, Object>>) map.get("adapters")) {
                adapters.add(new WeightedAdapter(
                        (String) each.get("name"), number(each.getOrDefault("weight", 1))));
            }
        }
        Job.Builder job = Job.of(prompt(map))
                .id((String) map.get("id"))
                .adapter((String) map.get("adapter"))
                .adapterScale(number(map.getOrDefault("adapter_scale", 1)))
                .strict((boolean) map.getOrDefault("strict", false))
                .priority(whole(map.getOrDefault("priority", 0)));
        if (map.get("adapters") != null) {
            job.adapters(adapters.toArray(WeightedAdapter[]::new));
        }
        if (map.get("deadline_ms") != null) {
            job.deadline(Duration.ofMillis(whole(map.get("deadline_ms"))));
        }
        if (map.get("reply_partition") != null) {
            job.replyPartition(whole(map.get("reply_partition")));
        }
        if (map.get("metadata") != null) {
            job.metadata((Map<String, String>) map.get("metadata"));
        }
        if (map.get("sampling") != null) {
            job.sampling(sampling((Map<String, Object>) map.get("sampling")));
        }
        return job.build();
    }

    private static Prompt prompt(Map<String, Object> map) {
        if (map.get("prompt") != null) {
            return new Prompt.Text((String) map.get("prompt"));
        }
        if (map.get("token_ids") != null) {
            return new Prompt.TokenIds(wholes(map.get("token_ids")));
        }
        List<Message> messages = new ArrayList<>();
        for (Map<String, Object> each : (List<Map<String, Object>>) map.get("messages")) {
            messages.add(new Message(
                    Message.Role.valueOf(each.get("role").toString().toUpperCase(Locale.ROOT)),
                    content(each.get("content")),
                    (String) each.get("name"),
                    (List<Map<String, Object>>) each.getOrDefault("tool_calls", List.of()),
                    (String) each.get("tool_call_id")));
        }
        return new Prompt.Conversation(
                messages,
                map.get("tools") == null
                        ? List.of()
                        : (List<Map<String, Object>>) map.get("tools"),
                (boolean) map.getOrDefault("add_generation_prompt", true),
                (boolean) map.getOrDefault("continue_final_message", false),
                (Map<String, Object>) map.getOrDefault("chat_template_kwargs", Map.of()));
    }

    private static List<String> content(Object told) {
        if (told instanceof List<?> parts) {
            return parts.stream().map(part -> (String) ((Map<?, ?>) part).get("text")).toList();
        }
        return told == null ? List.of() : List.of((String) told);
    }

    private static Sampling sampling(Map<String, Object> map) {
        Sampling.Builder made = Sampling.builder().form(form(map));
        map.forEach((name, value) -> {
            if (value == null) {
                return;
            }
            switch (name) {
                case "max_tokens" -> made.maxTokens(whole(value));
                case "min_tokens" -> made.minTokens(whole(value));
                case "temperature" -> made.temperature(number(value));
                case "top_p" -> made.topP(number(value));
                case "top_k" -> made.topK(whole(value));
                case "min_p" -> made.minP(number(value));
                case "repetition_penalty" -> made.repetitionPenalty(number(value));
                case "presence_penalty" -> made.presencePenalty(number(value));
                case "frequency_penalty" -> made.frequencyPenalty(number(value));
                case "seed" -> made.seed((Long) value);
                case "stop" -> made.stop(((List<String>) value).toArray(String[]::new));
                case "stop_token_ids" -> made.stopTokenIds(wholes(value));
                case "ignore_eos" -> made.ignoreEos((boolean) value);
                case "logit_bias" -> made.logitBias(biases((Map<String, Object>) value));
                case "logprobs" -> made.logprobs(whole(value));
                case "prompt_logprobs" -> made.promptLogprobs(whole(value));
                default -> { } // a form, or unknown
            }
        });
        return made.build();
    }

    private static Map<Integer, Double> biases(Map<String, Object> map) {
        Map<Integer, Double> biases = new HashMap<>();
        map.forEach((id, bias) -> biases.put(Integer.valueOf(id), number(bias)));
        return biases;
    }

    private static AnswerForm form(Map<String, Object> map) {
        if (map.get("regex") != null) {
            return new AnswerForm.Regex((String) map.get("regex"));
        }
        if (map.get("choice") != null) {
            return new AnswerForm.Choice((List<String>) map.get("choice"));
        }
        if (map.get("grammar") != null) {
            return new AnswerForm.Grammar((String) map.get("grammar"));
        }
        if (!(map.get("response_format") instanceof Map<?, ?> format)) {
            return null;
        }
        if (format.get("type").equals("json_object")) {
            return new AnswerForm.JsonObject();
        }
        Map<String, Object> schema = (Map<String, Object>) format.get("json_schema");
        return new AnswerForm.JsonSchema(
                schema.get("schema"),
                (String) schema.get("name"),
                (String) schema.get("description"),
                (Boolean) schema.get("strict"));
    }

    private static double number(Object value) {
        return ((Number) value).doubleValue();
    }

    private static int whole(Object value) {
        return Math.toIntExact(((Number) value).longValue());
    }

    private static List<Integer> wholes(Object value) {
        return ((List<?>) value).stream().map(JobMaker::whole).toList();
    }
}

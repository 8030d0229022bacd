package aril.client;

import java.util.List;
import java.util.Map;

/** What a job asks to be answered or continued: one of three. None prints what it holds. */
public sealed interface Prompt {
    /** A text that is continued as it is. */
    record Text(String text) implements Prompt {
        public Text {
            Check.text(ErrorCode.PROMPT_TOO_LONG, "prompt", text, 1, Limits.PROMPT_CHARS);
        }

        @Override
        public String toString() {
            return "Text[" + text.length() + " characters]";
        }
    }

    /** Token ids of the backbone's tokenizer. */
    record TokenIds(List<Integer> ids) implements Prompt {
        public TokenIds {
            ids = List.copyOf(ids);
            Check.size(ErrorCode.PROMPT_TOO_LONG, "token_ids", ids.size(), 1, Limits.PROMPT_TOKENS);
            ids.forEach(id -> Check.tokenId("token_ids", id));
        }

        @Override
        public String toString() {
            return "TokenIds[" + ids.size() + "]";
        }
    }

    /**
     * Messages, rendered by the backbone's chat template.
     *
     * @param tools functions that the template is told of, each as the OpenAI interface has it
     * @param addGenerationPrompt whether the template opens the assistant's turn
     * @param continueFinalMessage whether the answer goes on in the last message, left open
     * @param templateVariables {@code chat_template_kwargs}: {@code enable_thinking} for one
     */
    record Conversation(
            List<Message> messages,
            List<Map<String, Object>> tools,
            boolean addGenerationPrompt,
            boolean continueFinalMessage,
            Map<String, Object> templateVariables)
            implements Prompt {
        public Conversation {
            messages = List.copyOf(messages);
            Check.size(
                    ErrorCode.PROMPT_TOO_LONG, "messages", messages.size(), 1, Limits.MESSAGES);
            tools = Message.frozenMaps("tools", tools);
            String field = "chat_template_kwargs";
            templateVariables = JsonValues.frozenMap(field, templateVariables);
            Check.size(field, templateVariables.keySet(), 0, Limits.VARIABLES);
            templateVariables.keySet().forEach(key -> Check.name(field, key, Limits.VARIABLE));
            atMost(ErrorCode.LIMIT_EXCEEDED, field, JsonValues.chars(templateVariables),
                    Limits.VARIABLE_CHARS);
            // As the template sees them: parts joined by line breaks.
            long chars = messages.stream()
                    .mapToLong(each -> JsonValues.chars(String.join("\n", each.content())))
                    .sum();
            atMost(ErrorCode.PROMPT_TOO_LONG, "messages", chars, Limits.PROMPT_CHARS);
        }

        public static Conversation of(List<Message> messages) {
            return new Conversation(messages, List.of(), true, false, Map.of());
        }

        public Conversation withTools(List<Map<String, Object>> told) {
            return new Conversation(
                    messages, told, addGenerationPrompt, continueFinalMessage, templateVariables);
        }

        /** Returns the same, with variables of the chat template. */
        public Conversation withTemplateVariables(Map<String, Object> variables) {
            return new Conversation(
                    messages, tools, addGenerationPrompt, continueFinalMessage, variables);
        }

        /** Returns the same, whose answer goes on in the last message. */
        public Conversation continued() {
            return new Conversation(messages, tools, addGenerationPrompt, true, templateVariables);
        }

        private static void atMost(ErrorCode code, String field, long chars, int most) {
            if (chars > most) {
                throw Check.over(code, field, " characters together", most, chars);
            }
        }

        @Override
        public String toString() {
            return "Conversation[" + messages.size() + " messages]";
        }
    }
}

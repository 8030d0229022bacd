package aril.client;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;

/**
 * One turn of a conversation, rendered by the backbone's chat template.
 *
 * @param content its text in one or more parts, which the worker joins by line breaks; empty only
 *     in an assistant's turn
 * @param name of who speaks; null: none
 * @param toolCalls what an assistant's turn called, each as the OpenAI interface has it
 * @param toolCallId of the call that a tool answers; null: none
 */
public record Message(
        Role role,
        List<String> content,
        String name,
        List<Map<String, Object>> toolCalls,
        String toolCallId) {
    private static final int PARTS = 64;

    /** Who speaks. */
    public enum Role {
        SYSTEM,
        USER,
        ASSISTANT,
        TOOL
    }

    public Message {
        content = List.copyOf(content);
        Check.size("messages.content", content, 0, PARTS);
        for (String part : content) {
            Check.text(ErrorCode.PROMPT_TOO_LONG, "messages.content", part, 0, Limits.PROMPT_CHARS);
        }
        if (role == null) {
            throw new InvalidJobException("messages.role: is required");
        }
        if (content.isEmpty() && role != Role.ASSISTANT) {
            throw new InvalidJobException(
                    "messages.content: is required in a turn of this role");
        }
        if (name != null) {
            Check.text("messages.name", name, 0, Limits.SHORT_CHARS);
        }
        if (toolCallId != null) {
            Check.text("messages.tool_call_id", toolCallId, 0, Limits.LONG_CHARS);
        }
        toolCalls = frozenMaps("messages.tool_calls", toolCalls);
    }

    public static Message system(String text) {
        return new Message(Role.SYSTEM, List.of(text), null, List.of(), null);
    }

    public static Message user(String text) {
        return new Message(Role.USER, List.of(text), null, List.of(), null);
    }

    public static Message assistant(String text) {
        return new Message(Role.ASSISTANT, List.of(text), null, List.of(), null);
    }

    /** Returns an assistant's turn that has called these. */
    public static Message calls(List<Map<String, Object>> toolCalls) {
        return new Message(Role.ASSISTANT, List.of(), null, toolCalls, null);
    }

    /** Returns what a tool has answered to a call. */
    public static Message tool(String toolCallId, String text) {
        return new Message(Role.TOOL, List.of(text), null, List.of(), toolCallId);
    }

    static List<Map<String, Object>> frozenMaps(String field, List<Map<String, Object>> maps) {
        Check.size(field, maps, 0, Limits.TOOLS);
        List<Map<String, Object>> copy = new ArrayList<>();
        for (Map<String, Object> map : maps) {
            copy.add(JsonValues.frozenMap(field, map));
        }
        return Collections.unmodifiableList(copy);
    }

    /** Holds no content: it would end in logs. */
    @Override
    public String toString() {
        return "Message[role=" + role + "]";
    }
}

package aril.client;

import java.util.List;
import java.util.Map;

/** What an answer has to look like, if anything. What cannot be kept to is refused by a worker. */
public sealed interface AnswerForm {
    /** Any JSON object. */
    record JsonObject() implements AnswerForm {}

    /**
     * JSON that a schema describes, its properties in the schema's order.
     *
     * @param schema a map, best one that keeps its order, or the schema's own JSON as a String
     * @param name and {@code description} as in the OpenAI interface; null: none
     * @param strict changes nothing: a schema is always kept to; null: not said
     */
    record JsonSchema(Object schema, String name, String description, Boolean strict)
            implements AnswerForm {
        public JsonSchema {
            String field = "sampling.response_format.json_schema";
            if (schema instanceof String text) {
                Check.text(field + ".schema", text, 0, Limits.SCHEMA_CHARS);
            } else if (schema instanceof Map) {
                schema = JsonValues.frozen(field + ".schema", schema);
            } else {
                throw new InvalidJobException(field + ".schema: must be a map, or its JSON");
            }
            if (name != null) {
                Check.text(field + ".name", name, 0, Limits.SHORT_CHARS);
            }
            if (description != null) {
                Check.text(field + ".description", description, 0, Limits.LONG_CHARS);
            }
        }

        /** Returns the form of a schema that is JSON text. */
        public static JsonSchema of(String schema) {
            return new JsonSchema(schema, null, null, null);
        }
    }

    /** All of the answer matches it; Rust's syntax, without look-around and back-references. */
    record Regex(String pattern) implements AnswerForm {
        public Regex {
            Check.text("sampling.regex", pattern, 1, Limits.FORM_CHARS);
        }
    }

    /** The answer is one of these. */
    record Choice(List<String> of) implements AnswerForm {
        public Choice {
            of = List.copyOf(of);
            Check.size("sampling.choice", of, 1, Limits.CHOICES);
            of.forEach(each -> Check.text("sampling.choice", each, 1, Limits.CHOICE_CHARS));
        }
    }

    /** The answer is a text of this Lark grammar, whose first rule is {@code start}. */
    record Grammar(String lark) implements AnswerForm {
        public Grammar {
            Check.text("sampling.grammar", lark, 1, Limits.FORM_CHARS);
        }
    }
}

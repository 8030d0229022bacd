package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.fail;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** tokens.json and resumes.json: the token's text, and what its holder is given. */
class ResumeTokenTest {
    private static final Map<String, Class<? extends ArilException>> ERRORS = Map.of(
            "bad_token", BadTokenException.class, "conflict", JobConflictException.class);

    static Stream<Arguments> tokens() {
        return Vectors.of("tokens");
    }

    static Stream<Arguments> resumes() {
        return Vectors.of("resumes");
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("tokens")
    void text(String name, JsonNode vector) {
        String text = vector.get("text").asText();
        JsonNode expect = vector.get("expect");
        if (expect.has("error")) {
            assertThrows(BadTokenException.class, () -> ResumeToken.parse(text));
            return;
        }
        ResumeToken token = new ResumeToken(
                expect.get("partition").asInt(),
                expect.get("reply_from").asLong(),
                expect.get("count").asInt(),
                expect.get("resets").asInt(),
                expect.get("job").asText());
        assertEquals(token, ResumeToken.parse(text));
        assertEquals(
                vector.has("canonical") ? vector.get("canonical").asText() : text,
                token.toString());
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("resumes")
    void resumed(String name, JsonNode vector) {
        ResumeToken token = ResumeToken.parse(vector.get("token").asText());
        Mark mark = new Mark(token.resets(), token.count());
        Inbox inbox = new Inbox(token.job(), token.partition(), token.replyFrom(), 100, mark);
        JsonNode log = vector.get("log");
        for (int at = (int) token.replyFrom(); at < log.size() && !inbox.over(); at++) {
            byte[] value = Vectors.bytes(log.get(at));
            inbox.offer(new Fetched(token.partition(), at, token.job().getBytes(), value));
            if (inbox.redirected()) {
                at = (int) inbox.position() - 1;
                inbox.goOn();
            }
        }
        JsonNode expect = vector.get("expect");
        List<Object> given = new ArrayList<>();
        try {
            for (Event event = inbox.poll(); event != null; event = inbox.poll()) {
                given.add(StreamVectorsTest.described(event));
            }
            if (expect.has("error")) {
                fail("it is to be told " + expect.get("error"));
            }
        } catch (ArilException error) {
            assertEquals(ERRORS.get(expect.path("error").asText()), error.getClass());
        }
        Object events = expect.has("events") ? expect.get("events") : List.of();
        assertEquals(Vectors.plain(events), Vectors.plain(given));
    }
}

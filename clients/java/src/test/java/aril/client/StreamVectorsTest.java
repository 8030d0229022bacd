package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** streams.json: each log makes the events that its vector says, in msgpack and in JSON. */
class StreamVectorsTest {
    static Stream<Arguments> vectors() {
        return Vectors.of("streams");
    }

    @ParameterizedTest(name = "{0}")
    @MethodSource("vectors")
    void msgpack(String name, JsonNode vector) {
        run(vector, Vectors::bytes);
    }

    /** The same records as a worker writes them for a job in JSON. */
    @ParameterizedTest(name = "{0}")
    @MethodSource("vectors")
    void json(String name, JsonNode vector) {
        run(vector, step -> {
            String fields = step.get("record").toString();
            return ("{\"v\":1," + fields.substring(1)).getBytes(StandardCharsets.UTF_8);
        });
    }

    private static void run(
            JsonNode vector, Function<JsonNode, byte[]> bytes) {
        VisibleStream stream = new VisibleStream();
        for (JsonNode step : vector.get("log")) {
            List<Event> events = List.of();
            try {
                if (Reply.decode(bytes.apply(step)) instanceof Reply.Written record) {
                    events = stream.feed(record);
                }
            } catch (ReplyUnreadableException error) {
                assertEquals(ErrorCode.INVALID_JOB, error.code()); // as if it were not there
            }
            List<Object> told = new ArrayList<>();
            events.forEach(event -> told.add(described(event)));
            assertEquals(Vectors.plain(step.get("events")), Vectors.plain(told));
        }
        JsonNode visible = vector.get("visible");
        Map<String, Object> state = new LinkedHashMap<>();
        state.put("epoch", List.of(stream.epoch().generation(), stream.epoch().attempt()));
        state.put("writer", stream.writer());
        state.put("token_ids", stream.tokenIds());
        state.put("text", stream.text());
        state.put("terminal", !stream.finished()
                ? null
                : stream.terminal() instanceof Event.Done ? "done" : "error");
        state.put("resets", stream.resets());
        assertEquals(Vectors.plain(visible), Vectors.plain(state));
    }

    /** Returns an event as the vectors write it. */
    static Map<String, Object> described(Event event) {
        if (event instanceof Event.Tokens each) {
            return Map.of("tokens", Map.of(
                    "index", each.index(), "ids", each.ids(), "text", each.text()));
        }
        if (event instanceof Event.Reset each) {
            return Map.of("reset", Map.of("withdrawn", each.withdrawn()));
        }
        if (event instanceof Event.Done each) {
            return Map.of("done", Map.of("index", each.index(), "text", each.text()));
        }
        Event.Failed each = (Event.Failed) event;
        return Map.of("error", Map.of("index", each.index(), "code", each.code().text()));
    }
}

package aril.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** What a job may say beside what the vectors show. */
class JobTest {
    private static final String APPLE = "\uD83C\uDF4E"; // one character, two of Java's

    @Test
    void idsAreRandom() {
        assertNotEquals(Job.prompt("x").build().id(), Job.prompt("x").build().id());
    }

    /** Lengths are in Unicode characters. */
    @Test
    void charactersAreNotJavas() {
        Sampling.builder().stop(APPLE.repeat(256)).build();
        assertThrows(
                InvalidJobException.class,
                () -> Sampling.builder().stop(APPLE.repeat(257)).build());
    }

    /** The msgpack library would send a question mark. */
    @Test
    void halfOfASurrogatePairIsNotSent() {
        Job job = Job.prompt("x" + APPLE.charAt(0)).build();
        assertThrows(InvalidJobException.class, () -> RequestEncoder.encode(job, "acme", 0L));
    }

    @Test
    void aRecordIsNotTooLarge() {
        Job job = Job.prompt(APPLE.repeat(300_000)).build();
        InvalidJobException error = assertThrows(
                InvalidJobException.class, () -> RequestEncoder.encode(job, "acme", 0L));
        assertEquals(ErrorCode.LIMIT_EXCEEDED, error.code());
        assertEquals(1_000_000, error.limit());
    }

    /** A schema's properties come in its order; that of Map.of would differ from run to run. */
    @Test
    void orderIsKeptOrMade() {
        Map<String, Object> told = new LinkedHashMap<>();
        Map<String, String> unordered = new LinkedHashMap<>();
        for (String name : List.of("zeta", "alpha", "mid", "beta", "omega")) {
            told.put(name, 1);
            unordered.put(name, "1");
        }
        assertEquals(
                List.of("zeta", "alpha", "mid", "beta", "omega"),
                new ArrayList<>(JsonValues.frozenMap("x", told).keySet()));
        assertEquals(
                List.of("alpha", "beta", "mid", "omega", "zeta"),
                new ArrayList<>(JsonValues.frozenMap("x", Map.copyOf(unordered)).keySet()));
    }

    /** What is given to a job is copied: changing it later changes nothing. */
    @Test
    void mapsAreCopied() {
        Map<String, Object> tool = new LinkedHashMap<>(Map.of("type", "function"));
        Prompt told = Prompt.Conversation.of(List.of(Message.user("x"))).withTools(List.of(tool));
        Job job = Job.of(told).id("j").build();
        byte[] before = RequestEncoder.encode(job, "acme", 0L);
        tool.put("type", "other");
        assertArrayEquals(before, RequestEncoder.encode(job, "acme", 0L));
    }

    /** Jobs are logged; what they ask is not. */
    @Test
    void nothingPrintsAPrompt() {
        Prompt prompt = Prompt.Conversation.of(List.of(Message.user("secret")));
        Sampling sampling = Sampling.builder().stop("secret").build();
        Job job = Job.of(prompt).sampling(sampling).metadata(Map.of("k", "secret")).build();
        String told = "" + job + prompt + sampling + Message.user("secret")
                + new Prompt.Text("secret");
        assertFalse(told.contains("secret"), told);
    }
}

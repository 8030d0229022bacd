package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The router by hand: whatever the reader does, each caller gets its events once and in order. */
class RouterTest {
    private final FakeBroker broker = new FakeBroker(2, 10, false);
    private final Router router = new Router(broker);

    private static Inbox inbox(String job, long start, int limit) {
        return new Inbox(job, 0, start, limit, null);
    }

    private Inbox added(String job, long start, int limit) {
        Inbox inbox = inbox(job, start, limit);
        router.add(inbox);
        return inbox;
    }

    private void poll() {
        router.deliver(broker.poll());
    }

    private static String text(Event event) {
        return event instanceof Event.Tokens tokens
                ? tokens.text()
                : event.getClass().getSimpleName();
    }

    private static List<String> texts(Inbox inbox) {
        List<String> texts = new ArrayList<>();
        for (Event event = inbox.poll(); event != null; event = inbox.poll()) {
            texts.add(text(event));
        }
        return texts;
    }

    /** For any log, inbox and poll sizes, callers' speeds: nothing lost, doubled or unbounded. */
    @Test
    void eachEventOnceInOrder() {
        for (int seed = 0; seed < 400; seed++) {
            Random random = new Random(seed);
            String run = "seed " + seed;
            FakeBroker log = new FakeBroker(1, 1 + random.nextInt(7), false);
            Router routes = new Router(log);
            List<String> jobs = List.of("a", "b", "c");
            Map<String, List<String>> wanted = new HashMap<>();
            Map<String, List<String>> got = new HashMap<>();
            Map<String, Inbox> boxes = new HashMap<>();
            Map<String, Integer> limits = new HashMap<>();
            for (String job : jobs) {
                wanted.put(job, new ArrayList<>());
                got.put(job, new ArrayList<>());
                limits.put(job, 1 + random.nextInt(5));
                boxes.put(job, inbox(job, 0, limits.get(job)));
            }
            for (int at = random.nextInt(40); at > 0; at--) {
                String job = jobs.get(random.nextInt(jobs.size()));
                List<String> texts = wanted.get(job);
                texts.add("t" + at);
                log.append(0, job, Replies.tokens(job, texts.size() - 1, "t" + at));
            }
            boxes.values().forEach(routes::add);
            for (int move = 0; move < 200; move++) {
                boolean settle = move > 60; // then everybody takes all, and it must end
                if (routes.following() && (settle || random.nextBoolean())) {
                    routes.deliver(log.poll());
                }
                for (String job : settle ? jobs : List.of(jobs.get(random.nextInt(3)))) {
                    Inbox box = boxes.get(job);
                    assertTrue(box.waiting() <= limits.get(job), run);
                    Event event = box.poll();
                    if (event != null) {
                        got.get(job).add(text(event));
                    }
                    if (box.hasNewRoom()) {
                        routes.roomMade(box);
                    }
                }
            }
            assertEquals(wanted, got, run);
        }
    }

    /** However few the events: those of large records wait in the log, and none is lost. */
    @Test
    void largeRecordsFillAnInboxToo() {
        String large = "x".repeat(150_000);
        for (int index = 0; index < 20; index++) {
            broker.append(0, "a", Replies.tokens("a", index, large));
        }
        Inbox box = added("a", 0, 512);
        for (int index = 0; index < 20; index++) {
            while (router.following() && !box.stalled() && box.waiting() == 0) {
                poll();
            }
            assertTrue(box.waiting() <= 1 + Inbox.MAX_BYTES / large.length());
            assertEquals(large, text(box.poll()));
            if (box.hasNewRoom()) {
                router.roomMade(box);
            }
        }
        assertEquals(0, box.waiting());
        assertTrue(broker.reads() > 20); // it went back for what it had left out
    }

    /** When no inbox has room the partition is left alone, and read again once one has. */
    @Test
    void allStalledRestsTheReader() {
        for (int index = 0; index < 10; index++) {
            broker.append(0, "a", Replies.tokens("a", index, "x"));
        }
        Inbox slow = added("a", 0, 2);
        poll();
        assertFalse(router.following());
        assertEquals(Set.of(), broker.followed());
        assertEquals(2, slow.waiting());
        assertFalse(slow.hasNewRoom());
        slow.poll();
        assertTrue(slow.hasNewRoom());
        assertFalse(slow.hasNewRoom(), "told once");
        router.roomMade(slow);
        assertEquals(2, router.position(0).getAsLong());
    }

    /** A slow job holds nobody up, and its neighbours are given nothing twice by its re-reading. */
    @Test
    void aSlowJobBesideAFastOne() {
        for (int index = 0; index < 20; index++) {
            broker.append(0, "slow", Replies.tokens("slow", index, "s" + index));
            broker.append(0, "fast", Replies.tokens("fast", index, "f" + index));
        }
        Inbox slow = added("slow", 0, 2);
        Inbox fast = added("fast", 0, 100);
        for (int polls = 0; polls < 4; polls++) {
            poll();
        }
        assertEquals(20, fast.waiting());
        assertEquals(2, slow.waiting());
        List<String> read = new ArrayList<>();
        for (int round = 0; round < 100; round++) {
            read.addAll(texts(slow));
            if (slow.hasNewRoom()) {
                router.roomMade(slow);
            }
            poll();
        }
        assertEquals(IntStream.range(0, 20).mapToObj(at -> "s" + at).toList(), read);
        assertEquals(20, fast.waiting());
    }

    @Test
    void aFinishedJobIsForgotten() {
        broker.append(0, "a", Replies.answer("a", "x"));
        added("a", 0, 8);
        poll();
        assertEquals(List.of(), router.inboxes());
        assertEquals(Set.of(), broker.followed());
    }

    @Test
    void aJobIsReadOnce() {
        added("a", 0, 8);
        assertThrows(IllegalStateException.class, () -> added("a", 0, 8));
    }

    /** A reader that began behind it sees all of it once; its neighbours see nothing twice. */
    @Test
    void aRedirectLeadsBackToTheFirstAnswer() {
        broker.append(0, "a", Replies.tokens("a", 0, "x"));
        broker.append(0, "b", Replies.tokens("b", 0, "1"));
        broker.append(0, "a", Replies.tokens("a", 1, "y"));
        broker.append(0, "a", Replies.done("a", 2));
        broker.append(0, "a", Replies.redirect("a", 0));
        broker.append(0, "b", Replies.tokens("b", 1, "2"));
        Inbox late = added("a", 3, 8);
        Inbox beside = added("b", 1, 8);
        for (int polls = 0; polls < 4; polls++) {
            poll(); // the redirect and what follows it come in one
        }
        assertEquals(List.of("x", "y", "Done"), texts(late));
        assertEquals(0, late.token().replyFrom());
        assertEquals(List.of("1", "2"), texts(beside));
    }

    /** Only back, never forward or in a circle; and not for another job. */
    @ParameterizedTest
    @CsvSource({"0,0,a", "0,3,a", "2,2,a", "2,9,a", "2,0,b"})
    void aRedirectThatLeadsNowhereElseIsPassedOver(long position, long start, String job) {
        broker.append(0, "?", List.of(new byte[1], new byte[1]));
        broker.append(0, "a", Replies.redirect(job, start));
        Inbox box = added("a", position, 8);
        poll();
        assertEquals(position, box.token().replyFrom());
        assertEquals(3, router.position(0).getAsLong());
    }

    /** What a caller was given is not given again. */
    @Test
    void whoHasSeenTokensIsNotLedBack() {
        broker.append(0, "a", Replies.tokens("a", 0, "old"));
        broker.append(0, "a", Replies.tokens("a", 0, "x", 2));
        broker.append(0, "a", Replies.redirect("a", 0));
        Inbox box = added("a", 1, 8);
        poll();
        assertEquals(List.of("x"), texts(box));
        assertEquals(1, box.token().replyFrom());
    }

    /** A job that starts earlier moves the reader back; those beside it see nothing twice. */
    @Test
    void anOlderStartRewindsForOneOnly() {
        broker.append(0, "a", Replies.tokens("a", 0, "a0"));
        broker.append(0, "b", Replies.tokens("b", 0, "b0"));
        Inbox late = added("b", 1, 8);
        poll();
        Inbox early = added("a", 0, 8);
        poll();
        assertEquals(List.of("b0"), texts(late));
        assertEquals(List.of("a0"), texts(early));
    }

    /** When the log's start moves, jobs that still have their records go on. */
    @Test
    void trimFailsOnlyWhatIsGone() {
        broker.append(0, "a", List.of(new byte[1], new byte[1], new byte[1]));
        broker.append(0, "a", Replies.tokens("a", 0, "x"));
        Inbox gone = added("b", 0, 8);
        Inbox kept = added("a", 3, 8);
        broker.expire(0, 3);
        assertThrows(Transport.OutOfRangeException.class, broker::poll);
        router.trim(0, 3, 4);
        assertThrows(StreamLostException.class, gone::poll);
        poll();
        assertEquals(List.of("x"), texts(kept));
    }

    /** A partition whose last job was lost is not read any more: it would fail each poll. */
    @Test
    void trimOfAllLeavesThePartition() {
        added("a", 0, 8);
        router.trim(0, 3, 4);
        assertFalse(router.following());
        assertEquals(Set.of(), broker.followed());
    }

    @Test
    void aBrokenReplyFailsItsJobOnly() {
        broker.append(0, "a", new byte[] {1});
        broker.append(0, "b", Replies.tokens("b", 0, "x"));
        Inbox broken = added("a", 0, 8);
        Inbox beside = added("b", 0, 8);
        poll();
        assertThrows(ReplyUnreadableException.class, broken::poll);
        assertEquals(List.of("x"), texts(beside));
    }

    /** The set of codes is closed; what is not in it is told as text, not guessed at. */
    @Test
    void anUnknownCodeIsTold() {
        broker.append(0, "a", Replies.error("a", 0, "out_of_cheese", null, null));
        Inbox box = added("a", 0, 8);
        poll();
        ReplyUnreadableException error =
                assertThrows(ReplyUnreadableException.class, box::poll);
        assertTrue(error.getMessage().contains("out_of_cheese"));
    }

    /** What a token covers is folded and not given again; the end always is. */
    @ParameterizedTest
    @CsvSource({"0,0,4", "0,1,3", "0,3,1"})
    void resumingGivesOnlyTheRest(int resets, int count, int left) {
        broker.append(0, "a", Replies.answer("a", "x", "y", "z"));
        Inbox box = new Inbox("a", 0, 0, 8, new Mark(resets, count));
        router.add(box);
        poll();
        List<Event> events = new ArrayList<>();
        for (Event event = box.poll(); event != null; event = box.poll()) {
            events.add(event);
        }
        assertEquals(left, events.size());
        Event.Done done = assertInstanceOf(Event.Done.class, events.get(left - 1));
        assertEquals("xyz", box.completion(done).text());
        assertEquals(List.of(100, 101, 102), box.completion(done).tokenIds());
    }

    /** A prefix that was withdrawn while its reader was away is told, then all that is new. */
    @Test
    void resumingOverAResetTellsIt() {
        broker.append(0, "a", Replies.tokens("a", 0, "x"));
        broker.append(0, "a", Replies.tokens("a", 1, "y"));
        broker.append(0, "a", Replies.tokens("a", 0, "n", 2));
        Inbox box = new Inbox("a", 0, 0, 8, new Mark(0, 2));
        router.add(box);
        poll();
        assertEquals(List.of("Reset", "n"), texts(box));
        assertEquals("0.0.1.1.a", box.token().toString());
    }

    /** A token past the end or between resets names no place: it is refused, not guessed at. */
    @ParameterizedTest
    @CsvSource({"0,9", "1,0", "2,1"})
    void aTokenThatFitsNowhere(int resets, int count) {
        broker.append(0, "a", Replies.answer("a", "x", "y"));
        Inbox box = new Inbox("a", 0, 0, 8, new Mark(resets, count));
        router.add(box);
        poll();
        assertThrows(BadTokenException.class, box::poll);
    }

    /** A token that cuts a record in two names no place either. */
    @Test
    void aTokenInsideOfARecord() {
        Map<String, Object> fields =
                new HashMap<>(RecordReader.read(Replies.tokens("a", 0, "xy")));
        fields.put("ids", List.of(1, 2));
        broker.append(0, "a", RecordWriter.write(fields));
        Inbox box = new Inbox("a", 0, 0, 8, new Mark(0, 1));
        router.add(box);
        poll();
        assertThrows(BadTokenException.class, box::poll);
    }
}

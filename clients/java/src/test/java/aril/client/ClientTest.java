package aril.client;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The client with its threads against a broker in memory; the test plays the workers. */
@Timeout(30)
class ClientTest {
    private static final Duration SOON = Duration.ofMillis(100);
    private final FakeBroker broker = new FakeBroker(2, 500, true);
    private ArilClient client = broker.client("acme", UnaryOperator.identity());

    @AfterEach
    void close() {
        client.close();
    }

    private static int placeOf(String job) {
        return Murmur2.partition(job.getBytes(), 2);
    }

    private static Job job(String id) {
        return Job.prompt("Hi").id(id).build();
    }

    private void reply(String job, List<byte[]> records) {
        broker.append(placeOf(job), job, records);
    }

    private void reply(String job, byte[] record) {
        broker.append(placeOf(job), job, record);
    }

    private void untilIdle() throws InterruptedException {
        while (!broker.followed().isEmpty()) {
            Thread.sleep(5);
        }
    }

    @Test
    void aJobIsSentWithItsPlace() throws Exception {
        broker.append(placeOf("j1"), "?", List.of(new byte[1], new byte[1]));
        try (JobStream stream = client.stream(job("j1"))) {
            FakeBroker.Sent sent = broker.nextJob();
            assertEquals("j1", sent.key());
            assertEquals(Murmur2.partition("j1".getBytes(), 4), sent.partition());
            assertEquals("acme", sent.fields().get("tenant"));
            assertEquals(2L, sent.fields().get("reply_from"));
            assertEquals(placeOf("j1") + ".2.0.0.j1", stream.token().toString());
            reply("j1", Replies.answer("j1"));
        }
    }

    @Test
    void eventsComeInOrder() {
        List<String> told = new ArrayList<>();
        try (JobStream stream = client.stream(job("j1"))) {
            reply("j1", Replies.answer("j1", "a", "b"));
            for (Event event : stream) {
                told.add(event instanceof Event.Tokens tokens ? tokens.text() : "done");
            }
            assertEquals(placeOf("j1") + ".0.2.0.j1", stream.token().toString());
        }
        assertEquals(List.of("a", "b", "done"), told);
        assertEquals(1, broker.jobs.size(), "nothing is cancelled that has ended");
    }

    @Test
    void aResultIsWhole() {
        JobStream stream = client.stream(job("j1"));
        reply("j1", Replies.answer("j1", "a", "b"));
        Completion answer = stream.result();
        assertEquals("ab", answer.text());
        assertEquals(List.of(100, 101), answer.tokenIds());
        assertEquals(2.5, answer.timings().ttftMs());
    }

    @Test
    void anErrorIsTyped() {
        JobStream stream = client.stream(job("j1"));
        reply("j1", Replies.error("j1", 0, "limit_exceeded", 8, 9));
        JobFailedException error = assertThrows(JobFailedException.class, stream::result);
        assertEquals(ErrorCode.LIMIT_EXCEEDED, error.code());
        assertEquals(8L, error.limit());
        assertEquals(9L, error.given());
        assertNull(error.retryAfterMs());
        assertFalse(error.retryable());
        assertEquals("limit_exceeded: it is so (limit 8, given 9)", error.getMessage());
    }

    @Test
    void leavingCancels() throws Exception {
        client.stream(job("j1")).close();
        broker.nextJob();
        FakeBroker.Sent cancel = broker.nextJob();
        assertEquals("cancel", cancel.fields().get("kind"));
        assertEquals("j1", cancel.fields().get("id"));
        assertEquals(Murmur2.partition("j1".getBytes(), 4), cancel.partition());
        untilIdle();
    }

    @Test
    void detachingDoesNot() throws Exception {
        try (JobStream stream = client.stream(job("j1"))) {
            assertEquals(placeOf("j1") + ".0.0.0.j1", stream.detach().toString());
        }
        client.close();
        assertEquals(1, broker.jobs.size());
    }

    @Test
    void closingTheClientCancelsWhatRuns() throws Exception {
        JobStream stream = client.stream(job("j1"));
        broker.nextJob();
        client.close();
        assertEquals("cancel", broker.nextJob().fields().get("kind"));
        assertThrows(ClientClosedException.class, stream::result);
        assertThrows(ClientClosedException.class, () -> client.stream(job("j2")));
        assertTrue(broker.closed());
    }

    @Test
    void aTimeOutCancels() throws Exception {
        JobStream stream = client.stream(job("j1"), SOON);
        broker.nextJob();
        assertThrows(JobTimeoutException.class, stream::result);
        assertEquals("cancel", broker.nextJob().fields().get("kind"));
    }

    /** It is heard then, too; the job may be sent all the same, and is ended. */
    @Test
    void aTimeOutWhileNothingCanBeSent() throws Exception {
        CompletableFuture<Void> held = broker.hold();
        assertThrows(JobTimeoutException.class, () -> client.stream(job("j1"), SOON));
        ResumeToken token = new ResumeToken(0, 0, 0, 0, "j2");
        assertThrows(JobTimeoutException.class, () -> client.resume(token, SOON));
        assertTrue(broker.jobs.isEmpty());
        held.complete(null);
        Set<Object> sent = new HashSet<>();
        for (int each = 0; each < 3; each++) {
            FakeBroker.Sent next = broker.nextJob();
            sent.add(next.fields().get("kind") + " " + next.key());
        }
        assertEquals(Set.of("job j1", "cancel j1", "cancel j2"), sent);
        assertNotNull(client.stream(job("j1"))); // nobody reads it any more
    }

    /** What no clock measures is no end, and not an overflow. */
    @Test
    void aTimeOutOfAges() {
        Duration ages = Duration.ofSeconds(Long.MAX_VALUE);
        ResumeToken token = new ResumeToken(0, 0, 0, 0, "j2");
        reply("j1", Replies.answer("j1", "a"));
        JobStream begun = client.resume(token, ages);
        ResumeToken whole = new ResumeToken(placeOf("j1"), 0, 0, 0, "j1");
        assertEquals("a", client.resume(whole, ages).result().text());
        assertNotNull(client.stream(job("j3"), ages));
        begun.close();
        assertNotNull(client.resume(token, SOON));
    }

    @Test
    void anInterruptEndsTheWait() {
        JobStream stream = client.stream(job("j1"));
        Thread.currentThread().interrupt();
        assertThrows(WaitInterruptedException.class, () -> stream.iterator().next());
        assertTrue(Thread.interrupted());
    }

    /** A program that was killed goes on with the rest, in a client of its own. */
    @Test
    void resumeGivesTheRest() {
        ResumeToken token;
        try (JobStream stream = client.stream(job("j1"))) {
            reply("j1", Replies.tokens("j1", 0, "a"));
            stream.iterator().next();
            token = stream.detach();
        }
        reply("j1", Replies.tokens("j1", 1, "b"));
        reply("j1", Replies.done("j1", 2));
        List<Event> rest = new ArrayList<>();
        try (JobStream stream = client.resume(ResumeToken.parse(token.toString()))) {
            stream.forEach(rest::add);
            assertEquals("ab", stream.result().text());
        }
        assertEquals(2, rest.size());
        assertEquals("b", ((Event.Tokens) rest.get(0)).text());
    }

    @Test
    void whatRetentionTookCannotBeResumed() {
        reply("j1", Replies.answer("j1", "a"));
        broker.expire(placeOf("j1"), 1);
        ResumeToken token = ResumeToken.parse(placeOf("j1") + ".0.0.0.j1");
        assertThrows(StreamLostException.class, () -> client.resume(token));
        ResumeToken ahead = ResumeToken.parse(placeOf("j1") + ".3.0.0.j1");
        assertThrows(StreamLostException.class, () -> client.resume(ahead));
        ResumeToken elsewhere = ResumeToken.parse("2.0.0.0.j1");
        assertThrows(BadTokenException.class, () -> client.resume(elsewhere));
    }

    /** Retention that overtakes a stream ends it; what else is read goes on. */
    @Test
    void retentionEndsAStreamAndNoOther() {
        JobStream lost = client.resume(new ResumeToken(0, 0, 0, 0, "gone"));
        broker.lose(0, 2);
        assertThrows(StreamLostException.class, lost::result);
        assertEquals(0, broker.jobs.size(), "the job may be well: it is not cancelled");
        JobStream other = client.resume(new ResumeToken(1, 0, 0, 0, "other"));
        broker.append(1, "other", Replies.answer("other", "y"));
        assertEquals("y", other.result().text());
    }

    /** A caller who asks again after a restart is led to the first answer. */
    @Test
    void aJobSentAgainHasTheFirstAnswer() {
        int place = placeOf("j1");
        try (JobStream first = client.stream(job("j1"))) {
            reply("j1", Replies.answer("j1", "a", "b"));
            assertEquals("ab", first.result().text());
        }
        try (JobStream again = client.stream(job("j1"))) {
            reply("j1", Replies.redirect("j1", 0));
            assertEquals("ab", again.result().text());
            assertEquals(place + ".0.2.0.j1", again.token().toString());
        }
    }

    /** The sender of another job under a known id is told, and ends nobody's job. */
    @Test
    void anotherJobUnderAKnownIdIsToldSo() throws Exception {
        try (JobStream stream = client.stream(job("j1"))) {
            byte[] value = broker.nextJob().value();
            reply("j1", Replies.tokens("j1", 0, "x"));
            reply("j1", Replies.conflict("j1", "0".repeat(64), 0L));
            reply("j1", Replies.conflict("j1", Sha256.of(value), null));
            Iterator<Event> events = stream.iterator();
            assertEquals("x", ((Event.Tokens) events.next()).text());
            assertThrows(JobConflictException.class, events::hasNext);
        }
        client.close();
        assertEquals(0, broker.jobs.size(), "the job is another one's");
    }

    /** Callers who take nothing hold neither their neighbours nor memory. */
    @Test
    void aSlowCallerHoldsNobodyUp() throws Exception {
        client.close();
        client = broker.client("acme", options -> options.inboxEvents(4));
        int events = 2_000;
        String fast = "fast";
        String slow = sibling(fast);
        JobStream slowStream = client.stream(job(slow));
        JobStream fastStream = client.stream(job(fast));
        for (int index = 0; index < events; index++) {
            reply(slow, Replies.tokens(slow, index, "s"));
            reply(fast, Replies.tokens(fast, index, "f"));
        }
        reply(slow, Replies.done(slow, events));
        reply(fast, Replies.done(fast, events));
        assertEquals("f".repeat(events), fastStream.result().text());
        assertEquals("s".repeat(events), slowStream.result().text());
        assertTrue(broker.reads() > 2L * events, "the log is the buffer: it was read again");
    }

    private static String sibling(String job) {
        for (int number = 0; ; number++) {
            if (placeOf("j" + number) == placeOf(job)) {
                return "j" + number;
            }
        }
    }

    @Test
    void aBrokerThatIsAwayEndsStreamsWithoutCancelling() throws Exception {
        JobStream stream = client.stream(job("j1"));
        broker.nextJob();
        broker.fail(true);
        assertThrows(BrokerUnavailableException.class, stream::result);
        assertThrows(BrokerUnavailableException.class, () -> client.stream(job("j2")));
        broker.fail(false);
        ResumeToken token = stream.token();
        reply("j1", Replies.answer("j1", "a"));
        assertEquals("a", client.resume(token).result().text());
        assertEquals(0, broker.jobs.size());
    }

    /** A job that could not be sent is not read for, and can be sent again. */
    @Test
    void whatWasNotSentIsForgotten() {
        JobStream other = client.stream(job(sibling("j1").equals("j1") ? "x" : "j1"));
        broker.fail(true);
        assertThrows(RuntimeException.class, () -> client.stream(job("j9")));
        broker.fail(false);
        client.stream(job("j9")).detach();
        other.detach();
    }

    @Test
    void aFutureHasTheAnswer() throws Exception {
        CompletableFuture<Completion> answer = client.stream(job("j1")).resultAsync();
        CompletableFuture<Completion> failed = client.stream(job("j2")).resultAsync();
        reply("j1", Replies.answer("j1", "a", "b"));
        reply("j2", Replies.error("j2", 0, "internal", null, null));
        assertEquals("ab", answer.get(5, TimeUnit.SECONDS).text());
        ExecutionException error = assertThrows(
                ExecutionException.class, () -> failed.get(5, TimeUnit.SECONDS));
        assertEquals(ErrorCode.INTERNAL, ((JobFailedException) error.getCause()).code());
    }

    @Test
    void aFutureThatIsCancelledCancelsTheJob() throws Exception {
        CompletableFuture<Completion> answer = client.stream(job("j1")).resultAsync();
        broker.nextJob();
        answer.cancel(false);
        assertEquals("cancel", broker.nextJob().fields().get("kind"));
        untilIdle();
    }

    @Test
    void aReplyPartitionOfTheCallersChoice() throws Exception {
        int other = 1 - placeOf("j1");
        Job chosen = Job.prompt("Hi").id("j1").replyPartition(other).build();
        JobStream stream = client.stream(chosen);
        assertEquals((long) other, broker.nextJob().fields().get("reply_partition"));
        broker.append(other, "j1", Replies.answer("j1", "a"));
        assertEquals("a", stream.result().text());
        assertThrows(
                InvalidJobException.class,
                () -> client.stream(Job.prompt("Hi").replyPartition(2).build()));
    }

    @Test
    void signedRecordsHaveOneHeader() throws Exception {
        client.close();
        java.security.KeyPair pair =
                java.security.KeyPairGenerator.getInstance("Ed25519").generateKeyPair();
        Signer signer =
                new Signer(pair.getPrivate(), "k1", java.time.Clock.systemUTC());
        client = broker.client("acme", options -> options.signer(signer));
        client.stream(job("j1")).close();
        for (int sent = 0; sent < 2; sent++) { // the job and its cancel
            FakeBroker.Sent record = broker.nextJob();
            byte[] header = record.headers().get("aril-signature");
            assertNotNull(header);
            assertTrue(new String(header).startsWith("1.acme.k1."));
            assertArrayEquals(
                    new Object[] {"aril-signature"}, record.headers().keySet().toArray());
        }
    }
}

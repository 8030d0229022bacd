package aril.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.time.Duration;
import java.util.List;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Flow;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A stream as a publisher: as much as is asked for, then one ending. */
@Timeout(30)
class SubscriptionTest {
    private static final Duration SOON = Duration.ofMillis(50);

    private final FakeBroker broker = new FakeBroker(1, 3, true);
    private final ArilClient client = broker.client("acme", options -> options.inboxEvents(2));
    private final Asker asker = new Asker();

    /** Notes what it is told and asks for nothing by itself. */
    private static final class Asker implements Flow.Subscriber<Event> {
        final BlockingQueue<Object> told = new LinkedBlockingQueue<>();
        Flow.Subscription subscription;
        RuntimeException refuses;

        @Override
        public void onSubscribe(Flow.Subscription given) {
            subscription = given;
        }

        @Override
        public void onNext(Event event) {
            if (refuses != null) {
                throw refuses;
            }
            told.add(event instanceof Event.Tokens tokens ? tokens.text() : event);
        }

        @Override
        public void onError(Throwable error) {
            told.add(error);
        }

        @Override
        public void onComplete() {
            told.add("complete");
        }

        Object next() throws InterruptedException {
            return told.poll(10, TimeUnit.SECONDS);
        }

        Object soon() throws InterruptedException {
            return told.poll(100, TimeUnit.MILLISECONDS);
        }
    }

    @AfterEach
    void close() {
        client.close();
    }

    private JobStream subscribed() {
        JobStream stream = client.stream(Job.prompt("Hi").id("j").build());
        stream.subscribe(asker);
        return stream;
    }

    /** More than fits into the inbox: what is not asked for stays in the log. */
    @Test
    void asMuchAsIsAskedFor() throws Exception {
        subscribed();
        broker.append(0, "j", Replies.answer("j", "a", "b", "c", "d", "e", "f"));
        assertNull(asker.soon());
        asker.subscription.request(1);
        assertEquals("a", asker.next());
        assertNull(asker.soon());
        asker.subscription.request(4);
        for (String text : List.of("b", "c", "d", "e")) {
            assertEquals(text, asker.next());
        }
        assertNull(asker.soon());
        asker.subscription.request(Long.MAX_VALUE);
        asker.subscription.request(Long.MAX_VALUE); // no overflow
        assertEquals("f", asker.next());
        assertInstanceOf(Event.Done.class, asker.next());
        assertEquals("complete", asker.next());
        assertNull(asker.soon());
    }

    @Test
    void anErrorOfTheJob() throws Exception {
        subscribed();
        asker.subscription.request(9);
        broker.append(0, "j", Replies.tokens("j", 0, "a"));
        broker.append(0, "j", Replies.error("j", 1, "crash_loop", null, null));
        assertEquals("a", asker.next());
        JobFailedException error = assertInstanceOf(JobFailedException.class, asker.next());
        assertEquals(ErrorCode.CRASH_LOOP, error.code());
        assertNull(asker.soon());
    }

    /** Whether it has asked for something or not: nothing has to arrive for it to be told. */
    @ParameterizedTest
    @ValueSource(longs = {0, 9})
    void aTimeOut(long demand) throws Exception {
        JobStream stream = client.stream(Job.prompt("Hi").id("j").build(), SOON);
        stream.subscribe(asker);
        if (demand > 0) {
            asker.subscription.request(demand);
        }
        assertInstanceOf(JobTimeoutException.class, asker.next());
        assertEquals("job", broker.nextJob().fields().get("kind"));
        assertEquals("cancel", broker.nextJob().fields().get("kind"));
        assertNull(asker.soon());
    }

    /** What arrived before is given first, and whoever has left is told nothing. */
    @Test
    void aTimeOutBehindWhatHasArrived() throws Exception {
        JobStream stream = client.stream(Job.prompt("Hi").id("j").build(), Duration.ofSeconds(1));
        broker.append(0, "j", Replies.tokens("j", 0, "a"));
        stream.subscribe(asker);
        asker.subscription.request(9);
        assertEquals("a", asker.next());
        assertInstanceOf(JobTimeoutException.class, asker.next());
        Asker leaver = new Asker();
        client.stream(Job.prompt("Hi").id("k").build(), SOON).subscribe(leaver);
        leaver.subscription.cancel();
        assertNull(leaver.soon());
    }

    /** A future that nobody bounds is bounded by its stream. */
    @Test
    void aTimeOutOfAFuture() {
        JobStream stream = client.stream(Job.prompt("Hi").id("j").build(), SOON);
        ExecutionException error =
                assertThrows(ExecutionException.class, () -> stream.resultAsync().get());
        assertInstanceOf(JobTimeoutException.class, error.getCause());
    }

    /** Bad news needs no demand, but comes behind what has arrived. */
    @Test
    void aFailureWithoutDemand() throws Exception {
        subscribed();
        broker.fail(true);
        assertInstanceOf(BrokerUnavailableException.class, asker.next());
        broker.fail(false);
    }

    @Test
    void cancellingEndsTheJob() throws Exception {
        subscribed();
        broker.nextJob();
        asker.subscription.cancel();
        assertEquals("cancel", broker.nextJob().fields().get("kind"));
        asker.subscription.request(1);
        assertNull(asker.soon());
    }

    @Test
    void aRequestForNothingIsAnError() throws Exception {
        subscribed();
        asker.subscription.request(0);
        assertInstanceOf(IllegalArgumentException.class, asker.next());
    }

    @Test
    void aSubscriberThatThrowsIsToldSo() throws Exception {
        asker.refuses = new IllegalStateException("no");
        subscribed();
        broker.nextJob();
        asker.subscription.request(1);
        broker.append(0, "j", Replies.tokens("j", 0, "a"));
        assertEquals(asker.refuses, asker.next());
        assertEquals("cancel", broker.nextJob().fields().get("kind"));
    }

    @Test
    void oneSubscriberAndNoIteratorBesideIt() {
        JobStream stream = subscribed();
        assertThrows(IllegalStateException.class, () -> stream.subscribe(new Asker()));
        assertThrows(IllegalStateException.class, () -> stream.iterator().next());
    }
}

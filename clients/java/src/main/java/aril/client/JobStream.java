package aril.client;

import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executor;
import java.util.concurrent.Flow;
import java.util.concurrent.TimeUnit;

/**
 * The answer to one job. Take its events in one way: iterate, wait for {@link #result}, or
 * subscribe. Tokens are given exactly once and in order, whatever happens to workers.
 *
 * <pre>{@code
 * try (JobStream answer = client.stream(job)) {
 *     for (Event event : answer) { ... }
 * }
 * }</pre>
 *
 * <p>Closing cancels a job whose end was not seen, {@link #detach} lets it run. Iterating and
 * waiting throw {@link JobFailedException} where the job ended in an error, {@link
 * JobTimeoutException}, {@link StreamLostException}, {@link ReplyUnreadableException} and {@link
 * BrokerUnavailableException}; a subscriber is told the same by {@code onError}.
 */
public final class JobStream implements Iterable<Event>, Flow.Publisher<Event>, AutoCloseable {
    /** What a stream asks of its client. */
    interface Owner {
        /** The caller took an event. */
        void taken(Inbox inbox);

        /** Stop reading for a stream; with {@code cancel} end its job, too. */
        void leave(Inbox inbox, boolean cancel);

        /** End a job. */
        void cancel(String job);
    }

    private final Owner owner;
    private final Inbox inbox;
    private final Patience patience;
    private final CompletableFuture<Void> leaving = new CompletableFuture<>();
    private Completion completion;
    private boolean subscribed;
    private volatile boolean over; // the end has been handed over
    private boolean left;

    JobStream(Owner owner, Inbox inbox, Patience patience) {
        this.owner = owner;
        this.inbox = inbox;
        this.patience = patience;
    }

    public String job() {
        return inbox.job;
    }

    /** Where the caller stands now: what {@link ArilClient#resume} takes, here or elsewhere. */
    public ResumeToken token() {
        return inbox.token();
    }

    /** Returns an iterator that waits for events. It goes on where an earlier one was left. */
    @Override
    public Iterator<Event> iterator() {
        return new Iterator<>() {
            private Event next;

            @Override
            public boolean hasNext() {
                if (next == null && !over) {
                    next = take();
                }
                return next != null;
            }

            @Override
            public Event next() {
                if (!hasNext()) {
                    throw new NoSuchElementException("the answer is complete");
                }
                Event event = next;
                next = null;
                return event;
            }
        };
    }

    private Event take() {
        if (subscribed()) {
            throw new IllegalStateException("a subscriber takes this stream's events");
        }
        Event event;
        try {
            event = inbox.take(patience.until());
        } catch (InterruptedException error) {
            throw WaitInterruptedException.of(error);
        } catch (ArilException error) {
            leave(false); // the job may be well: its token can be tried again
            throw error;
        }
        if (event == null) {
            leave(true);
            throw patience.over(inbox.job);
        }
        return taken(event);
    }

    /** Returns the next event without waiting, or null. */
    Event poll() {
        Event event;
        try {
            event = inbox.poll();
        } catch (ArilException error) {
            leave(error instanceof JobTimeoutException);
            throw error;
        }
        return event == null ? null : taken(event);
    }

    /** Throws, if nothing waits to be taken, why nothing more will come. */
    void check() {
        try {
            inbox.check();
        } catch (ArilException error) {
            leave(error instanceof JobTimeoutException);
            throw error;
        }
    }

    private Event taken(Event event) {
        owner.taken(inbox);
        if (event instanceof Event.Failed failed) {
            over = true;
            throw new JobFailedException(inbox.job, failed);
        }
        if (event instanceof Event.Done done) {
            completion = inbox.completion(done);
            over = true;
        }
        return event;
    }

    /** Waits for the end, closes the stream and returns the whole answer, resets withdrawn. */
    public Completion result() {
        try (this) {
            Iterator<Event> events = iterator();
            while (events.hasNext()) {
                events.next();
            }
            return completion();
        }
    }

    /** Returns the answer as a future; its events go nowhere else. One that times out cancels. */
    public CompletableFuture<Completion> resultAsync() {
        CompletableFuture<Completion> result = new CompletableFuture<>();
        subscribe(new Flow.Subscriber<>() {
            @Override
            public void onSubscribe(Flow.Subscription subscription) {
                subscription.request(Long.MAX_VALUE);
                // Whoever cancels the future, or lets it time out, wants no answer any more.
                result.whenComplete((answer, error) -> {
                    if (answer == null) {
                        subscription.cancel();
                    }
                });
            }

            @Override
            public void onNext(Event event) {}

            @Override
            public void onError(Throwable error) {
                result.completeExceptionally(error);
            }

            @Override
            public void onComplete() {
                result.complete(completion());
            }
        });
        return result;
    }

    private Completion completion() {
        if (completion == null) {
            throw new ClientClosedException("the end of job " + inbox.job + " was not seen");
        }
        return completion;
    }

    /** Gives the events to one subscriber, in the common pool, as fast as it asks for them. */
    @Override
    public void subscribe(Flow.Subscriber<? super Event> subscriber) {
        subscribe(subscriber, new CompletableFuture<Void>().defaultExecutor());
    }

    /**
     * Gives the events to one subscriber, in threads of an executor. Its cancelling is as closing.
     *
     * @throws IllegalStateException if there is one already
     */
    public void subscribe(Flow.Subscriber<? super Event> subscriber, Executor executor) {
        synchronized (this) {
            if (subscribed) {
                throw new IllegalStateException("a stream has one subscriber");
            }
            subscribed = true;
        }
        EventSubscription subscription = new EventSubscription(this, subscriber, executor);
        inbox.listen(subscription::signal);
        subscription.begin();
        if (patience.until() != null) {
            failInTime();
        }
    }

    /** Ends the wait of a subscriber, whom nothing wakes but what arrives. */
    private void failInTime() {
        leaving.orTimeout(Math.max(0, patience.left()), TimeUnit.NANOSECONDS)
                .whenCompleteAsync((left, late) -> {
                    if (late != null) {
                        inbox.fail(patience.over(inbox.job));
                    }
                });
    }

    private synchronized boolean subscribed() {
        return subscribed;
    }

    /** Returns whether the end was handed over. */
    boolean over() {
        return over;
    }

    /** Asks the worker to end the job; the stream then ends in {@code CANCELLED}. */
    public void cancel() {
        owner.cancel(inbox.job);
    }

    /** Stops reading but lets the job run; returns the token to resume it with. */
    public ResumeToken detach() {
        ResumeToken token = token();
        leave(false);
        return token;
    }

    /** Stops reading; cancels the job unless its end was seen. */
    @Override
    public void close() {
        leave(true);
    }

    private void leave(boolean cancel) {
        synchronized (this) {
            if (left) {
                return;
            }
            left = true;
        }
        leaving.complete(null);
        inbox.fail(new ClientClosedException("the stream of job " + inbox.job + " was closed"));
        owner.leave(inbox, cancel && !over);
    }
}

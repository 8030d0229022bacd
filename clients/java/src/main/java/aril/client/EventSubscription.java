package aril.client;

import java.util.concurrent.Executor;
import java.util.concurrent.Flow;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/** One subscriber of a stream: given as much as it asks for, one signal at a time. */
final class EventSubscription implements Flow.Subscription, Runnable {
    private final JobStream stream;
    private final Flow.Subscriber<? super Event> subscriber;
    private final Executor executor;
    private final AtomicLong demand = new AtomicLong();
    private final AtomicInteger signals = new AtomicInteger(); // since the last look; 0: at rest
    private volatile Throwable refused; // a request that the specification forbids
    private volatile boolean ended;

    EventSubscription(
            JobStream stream, Flow.Subscriber<? super Event> subscriber, Executor executor) {
        this.stream = stream;
        this.subscriber = subscriber;
        this.executor = executor;
    }

    void begin() {
        signals.set(1); // what is asked for in onSubscribe waits until it has returned
        subscriber.onSubscribe(this);
        executor.execute(this);
    }

    /** Something may have changed: look soon. */
    void signal() {
        if (!ended && signals.getAndIncrement() == 0) {
            try {
                executor.execute(this);
            } catch (RejectedExecutionException error) { // nobody can be told any more
                cancel();
            }
        }
    }

    @Override
    public void request(long count) {
        if (count <= 0) {
            refused = new IllegalArgumentException("a subscriber asks for 1 event or more");
        } else {
            demand.updateAndGet(now -> now + count < 0 ? Long.MAX_VALUE : now + count);
        }
        signal();
    }

    @Override
    public void cancel() {
        if (!ended) {
            ended = true;
            stream.close();
        }
    }

    @Override
    public void run() {
        int seen;
        do {
            seen = signals.get();
            give();
        } while (signals.addAndGet(-seen) != 0);
    }

    private void give() {
        try {
            while (!ended) {
                if (refused != null) {
                    throw refused;
                }
                if (demand.get() == 0) {
                    stream.check(); // bad news needs no demand
                    return;
                }
                Event event = stream.poll();
                if (event == null) {
                    return;
                }
                demand.decrementAndGet();
                subscriber.onNext(event);
                if (stream.over() && !ended) {
                    ended = true;
                    stream.close();
                    subscriber.onComplete();
                }
            }
        } catch (Throwable error) { // the subscriber's own, too
            if (!ended) {
                ended = true;
                stream.close();
                subscriber.onError(error);
            }
        }
    }
}

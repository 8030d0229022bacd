package aril.client;

import java.util.ArrayDeque;
import java.util.Deque;
import java.util.concurrent.locks.Condition;
import java.util.concurrent.locks.ReentrantLock;

/**
 * One job's end: the reader rule, and the events that its caller has not taken yet.
 *
 * <p>The thread that reads offers records, the caller takes events. An inbox that is full takes
 * nothing more: it has stalled, and the reader comes back to where it left off.
 */
final class Inbox {
    /**
     * Of records whose events may wait: logprobs make few events large. One record may be past it,
     * so that any is read.
     */
    static final int MAX_BYTES = 1 << 20;

    /** An event with the bytes of its record. */
    private record Waiting(Event event, int bytes) {}

    final String job;
    final int partition;
    private final int limit;
    private final ReentrantLock lock = new ReentrantLock();
    private final Condition changed = lock.newCondition();
    private final Deque<Waiting> events = new ArrayDeque<>();
    private int bytes;
    private VisibleStream visible = new VisibleStream();
    private long start;
    private long position;
    private Mark folded = Mark.START;
    private Mark given;
    private boolean replaying;
    private boolean stalled;
    private boolean redirected; // stalled until the reader has gone back
    private boolean roomTold;
    private final String sent; // the hash of the job's record; null: sent for another reader
    private RuntimeException failure;
    private volatile Runnable listener = () -> { };

    /**
     * Prepares to read from an offset.
     *
     * @param limit the events that may wait, at least 1
     * @param resumeAt what it covers is not given again; null: a new job
     */
    Inbox(String job, int partition, long start, int limit, Mark resumeAt) {
        this(job, partition, start, limit, resumeAt, null);
    }

    /**
     * The same for a job that is sent for it.
     *
     * @param sent the hash of the job's record; null: it was sent for another reader
     */
    Inbox(String job, int partition, long start, int limit, Mark resumeAt, String sent) {
        this.job = job;
        this.partition = partition;
        this.start = start;
        this.position = start;
        this.limit = limit;
        this.given = resumeAt == null ? Mark.START : resumeAt;
        this.replaying = resumeAt != null;
        this.sent = sent;
    }

    /** Takes the partition's next record for this job, or stalls if the inbox is full. */
    void offer(Fetched record) {
        lock.lock();
        try {
            if (record.offset() < position || stalled) {
                return;
            }
            if (events.size() >= limit || bytes >= MAX_BYTES) {
                stalled = true;
                roomTold = false;
                return;
            }
            position = record.offset() + 1;
            fold(record.value());
            changed.signalAll();
        } finally {
            lock.unlock();
        }
        listener.run();
    }

    private void fold(byte[] value) {
        Reply reply;
        try {
            reply = Reply.decode(value);
        } catch (ReplyUnreadableException error) {
            String told = "a reply to job " + job + " cannot be read: " + error.getMessage();
            failure = new ReplyUnreadableException(error.code(), told);
            return;
        }
        if (reply instanceof Reply.Redirect redirect) {
            follow(redirect);
        } else if (reply instanceof Reply.Conflict conflict) {
            if (conflict.job().equals(job) && isMine(conflict)) {
                failure = new JobConflictException(job);
            }
        } else if (reply instanceof Reply.Written written) {
            visible.feed(written).forEach(event -> admit(event, value.length));
        }
    }

    /** Of a job that was sent before: its answer begins where the first one's does. */
    private void follow(Reply.Redirect redirect) {
        if (redirect.job().equals(job) && redirect.replyFrom() < start && nothingSeen()) {
            start = redirect.replyFrom();
            position = start;
            visible = new VisibleStream();
            stalled = true;
            redirected = true;
        }
    }

    /** Who did not send the job knows only the place, where then is no other one's answer. */
    private boolean isMine(Reply.Conflict conflict) {
        return sent != null
                ? conflict.sha256().equals(sent)
                : nothingSeen() && Long.valueOf(start).equals(conflict.replyFrom());
    }

    private boolean nothingSeen() {
        return folded.equals(Mark.START) && given.equals(Mark.START);
    }

    private void admit(Event event, int size) {
        Mark before = folded;
        folded = folded.after(event);
        if (replaying) {
            boolean beside;
            if (event instanceof Event.Tokens || event instanceof Event.Reset) {
                if (folded.compareTo(given) <= 0) {
                    return;
                }
                beside = before.compareTo(given) < 0 && before.resets() == given.resets();
            } else {
                beside = folded.compareTo(given) < 0;
            }
            if (beside) {
                failure = new BadTokenException(
                        "the token of job " + job + " fits no place in its visible stream");
                return;
            }
            replaying = false;
        }
        if (failure == null) {
            events.add(new Waiting(event, size));
            bytes += size;
        }
    }

    /** Tells the caller, after what has already arrived, that nothing more will come. */
    void fail(RuntimeException error) {
        lock.lock();
        try {
            failure = failure == null ? error : failure;
            changed.signalAll();
        } finally {
            lock.unlock();
        }
        listener.run();
    }

    /** Returns the caller's next event or null for now; throws the failure behind the last one. */
    Event poll() {
        lock.lock();
        try {
            check();
            Waiting next = events.poll();
            if (next == null) {
                return null;
            }
            bytes -= next.bytes();
            given = given.after(next.event());
            return next.event();
        } finally {
            lock.unlock();
        }
    }

    /** Throws the failure, if there is one and all events before it were taken. */
    void check() {
        lock.lock();
        try {
            if (events.isEmpty() && failure != null) {
                throw failure;
            }
        } finally {
            lock.unlock();
        }
    }

    /**
     * Waits for the caller's next event.
     *
     * @param until as of {@code System.nanoTime()}; null: for ever
     * @return null when the time is over
     */
    Event take(Long until) throws InterruptedException {
        lock.lockInterruptibly();
        try {
            while (events.isEmpty() && failure == null) {
                if (until == null) {
                    changed.await();
                } else if (changed.awaitNanos(until - System.nanoTime()) <= 0
                        && events.isEmpty() && failure == null) {
                    return null;
                }
            }
            return poll();
        } finally {
            lock.unlock();
        }
    }

    /** Returns, once for each time that it stalled, whether there is room enough to go on. */
    boolean hasNewRoom() {
        lock.lock();
        try {
            boolean roomy = events.size() <= limit / 2 && bytes <= MAX_BYTES / 2;
            boolean tell = stalled && !roomTold && roomy;
            roomTold |= tell;
            return tell;
        } finally {
            lock.unlock();
        }
    }

    /** Goes on after a stall; by the thread that reads, which then reads from the position. */
    void goOn() {
        lock.lock();
        try {
            stalled = false;
            redirected = false;
        } finally {
            lock.unlock();
        }
    }

    /** Calls {@code told}, from the reading thread, whenever something may have arrived. */
    void listen(Runnable told) {
        listener = told;
    }

    ResumeToken token() {
        lock.lock();
        try {
            return new ResumeToken(partition, start, given.tokens(), given.resets(), job);
        } finally {
            lock.unlock();
        }
    }

    Completion completion(Event.Done done) {
        lock.lock();
        try {
            return Completion.of(job, visible, done);
        } finally {
            lock.unlock();
        }
    }

    int waiting() {
        lock.lock();
        try {
            return events.size();
        } finally {
            lock.unlock();
        }
    }

    // Below: written by the thread that reads, and asked by it only.

    long position() {
        return position;
    }

    boolean stalled() {
        return stalled;
    }

    boolean redirected() {
        return redirected;
    }

    /** Whether it needs no more records: its end is visible, or it has failed. */
    boolean over() {
        lock.lock();
        try {
            return visible.finished() || failure != null;
        } finally {
            lock.unlock();
        }
    }

    /** Whether there is nothing to cancel: its end was seen, taken or not, or it never began. */
    boolean finished() {
        lock.lock();
        try {
            return visible.finished() || failure instanceof JobConflictException;
        } finally {
            lock.unlock();
        }
    }
}

package aril.client;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.function.Supplier;

/**
 * Many jobs over one reader of a reply topic: who gets which record, in bounded memory.
 *
 * <p>A job's inbox that is full takes nothing more; once it has been emptied by half the reader
 * goes back to the first record it left out. The log is the buffer, so a slow caller costs its
 * neighbours neither memory nor records, only some reading twice.
 *
 * <p>For one thread, the one that polls: between a poll and {@link #deliver} nothing may move.
 */
final class Router {
    private final Transport transport;
    private final Map<String, Inbox> inboxes = new LinkedHashMap<>();
    private final Map<Integer, Long> next = new ConcurrentHashMap<>();

    Router(Transport transport) {
        this.transport = transport;
    }

    /** Returns whether any partition is being read. */
    boolean following() {
        return !next.isEmpty();
    }

    /**
     * Returns the offset that is read next, if the partition is followed. For any thread: an old
     * value is as true, as the log does not end before it.
     */
    OptionalLong position(int partition) {
        Long at = next.get(partition);
        return at == null ? OptionalLong.empty() : OptionalLong.of(at);
    }

    /** Returns the inboxes of the jobs that are being read, copied. */
    List<Inbox> inboxes() {
        return List.copyOf(inboxes.values());
    }

    /** Begins to read for a job. Throws IllegalStateException if it is being read already. */
    void add(Inbox inbox) {
        if (inboxes.putIfAbsent(inbox.job, inbox) != null) {
            throw new IllegalStateException("job " + inbox.job + " is already being read");
        }
        readFrom(inbox);
    }

    /** Stops reading for a job; harmless if it has stopped. */
    void remove(Inbox inbox) {
        if (inboxes.remove(inbox.job, inbox)) {
            rest(inbox.partition);
        }
    }

    /** Hands over what one poll returned. */
    void deliver(List<Fetched> records) {
        Set<Inbox> redirected = new LinkedHashSet<>();
        for (Fetched record : records) {
            Long expected = next.get(record.partition());
            if (expected == null || record.offset() < expected) {
                continue;
            }
            next.put(record.partition(), record.offset() + 1);
            Inbox inbox = inboxes.get(jobOf(record));
            if (inbox == null || inbox.partition != record.partition()) {
                continue;
            }
            inbox.offer(record);
            if (inbox.over()) {
                remove(inbox);
            } else if (inbox.stalled()) {
                rest(record.partition());
                if (inbox.redirected()) {
                    redirected.add(inbox);
                }
            }
        }
        for (Inbox inbox : redirected) { // only now: the rest of this poll lies ahead of them
            if (inboxes.get(inbox.job) == inbox) {
                inbox.goOn();
                readFrom(inbox);
            }
        }
    }

    private static String jobOf(Fetched record) {
        return record.key() == null ? "" : new String(record.key(), StandardCharsets.UTF_8);
    }

    /** Notes that a caller made room: a stalled inbox goes on where it left off. */
    void roomMade(Inbox inbox) {
        if (inbox.stalled() && inboxes.get(inbox.job) == inbox) {
            inbox.goOn();
            readFrom(inbox);
        }
    }

    /** Fails the jobs whose next record is not in the log, and reads on for the others. */
    void trim(int partition, long start, long end) {
        next.remove(partition);
        for (Inbox inbox : inboxes()) {
            if (inbox.partition != partition) {
                continue;
            }
            if (start <= inbox.position() && inbox.position() <= end) {
                if (!inbox.stalled()) {
                    readFrom(inbox);
                }
            } else {
                inboxes.remove(inbox.job);
                inbox.fail(new StreamLostException(
                        "replies to job " + inbox.job + " from offset " + inbox.position()
                                + " are gone (the log holds " + start + " to " + end + ")"));
            }
        }
        if (!next.containsKey(partition)) {
            transport.unfollow(partition);
        }
    }

    /** Fails every job, each with an exception of its own. */
    void failAll(Supplier<RuntimeException> error) {
        List<Inbox> failed = inboxes();
        inboxes.clear();
        failed.forEach(inbox -> inbox.fail(error.get()));
        for (int partition : new ArrayList<>(next.keySet())) {
            rest(partition);
        }
    }

    private void readFrom(Inbox inbox) {
        Long at = next.get(inbox.partition);
        if (at == null || inbox.position() < at) {
            next.put(inbox.partition, inbox.position());
            transport.follow(inbox.partition, inbox.position());
        }
    }

    private void rest(int partition) {
        boolean wanted = inboxes.values().stream()
                .anyMatch(inbox -> inbox.partition == partition && !inbox.stalled());
        if (!wanted && next.remove(partition) != null) {
            transport.unfollow(partition);
        }
    }
}

package aril.client;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.UnaryOperator;

/** One jobs topic and one tenant's reply topic in memory, and a transport to them. */
final class FakeBroker implements Transport {
    private static final long POLL_MS = 20;

    /** By hand, an empty poll returns at once. */
    private final boolean waits;

    /** A record of the jobs topic. */
    record Sent(
            int partition,
            String key,
            byte[] value,
            Map<String, Object> fields,
            Map<String, byte[]> headers) {}

    final BlockingQueue<Sent> jobs = new LinkedBlockingQueue<>();
    private final List<List<Fetched>> logs = new ArrayList<>();
    private final long[] starts;
    private final Map<Integer, Long> followed = new HashMap<>();
    private final int pollRecords;
    private CompletableFuture<Void> room = CompletableFuture.completedFuture(null);
    private boolean woken;
    private boolean failing;
    private boolean closed;
    private long reads;

    FakeBroker(int replyPartitions, int pollRecords, boolean waits) {
        this.waits = waits;
        this.pollRecords = pollRecords;
        this.starts = new long[replyPartitions];
        for (int each = 0; each < replyPartitions; each++) {
            logs.add(new ArrayList<>());
        }
    }

    ArilClient client(String tenant, UnaryOperator<ClientBuilder> options) {
        return new ArilClient(options.apply(ArilClient.builder("", tenant)), this);
    }

    /** Waits for the next record of the jobs topic. */
    Sent nextJob() throws InterruptedException {
        Sent sent = jobs.poll(10, TimeUnit.SECONDS);
        if (sent == null) {
            throw new AssertionError("nothing was sent");
        }
        return sent;
    }

    synchronized void append(int partition, String job, byte[] value) {
        byte[] key = job.getBytes(StandardCharsets.UTF_8);
        List<Fetched> log = logs.get(partition);
        log.add(new Fetched(partition, log.size(), key, value));
        notifyAll();
    }

    void append(int partition, String job, List<byte[]> values) {
        values.forEach(value -> append(partition, job, value));
    }

    /** Deletes the replies below an offset, as retention does. */
    synchronized void expire(int partition, long start) {
        starts[partition] = start;
    }

    /** Appends records that retention deletes before anybody reads them. */
    synchronized void lose(int partition, int count) {
        for (int each = 0; each < count; each++) {
            append(partition, "?", new byte[1]);
        }
        expire(partition, logs.get(partition).size());
    }

    synchronized void fail(boolean fails) {
        failing = fails;
        notifyAll();
    }

    /** Takes and tells nothing until what this returns is completed. */
    synchronized CompletableFuture<Void> hold() {
        room = new CompletableFuture<>();
        return room;
    }

    /** How many records were fetched, again or not. */
    synchronized long reads() {
        return reads;
    }

    synchronized Set<Integer> followed() {
        return Set.copyOf(followed.keySet());
    }

    synchronized boolean closed() {
        return closed;
    }

    @Override
    public Partitions open() {
        return new Partitions(4, logs.size());
    }

    @Override
    public synchronized CompletableFuture<Void> send(
            int partition, byte[] key, byte[] value, Map<String, byte[]> headers) {
        if (failing) {
            return CompletableFuture.failedFuture(down());
        }
        String name = new String(key, StandardCharsets.UTF_8);
        return room.thenRun(
                () -> jobs.add(new Sent(partition, name, value, RecordReader.read(value), headers)));
    }

    private static BrokerUnavailableException down() {
        return new BrokerUnavailableException("the broker is down", null);
    }

    @Override
    public synchronized CompletableFuture<Long> logStart(int partition) {
        return room.thenApply(nothing -> starts[partition]);
    }

    @Override
    public synchronized CompletableFuture<Long> logEnd(int partition) {
        return failing
                ? CompletableFuture.failedFuture(down())
                : CompletableFuture.completedFuture((long) logs.get(partition).size());
    }

    @Override
    public synchronized void wakeup() {
        woken = true;
        notifyAll();
    }

    @Override
    public synchronized void close() {
        closed = true;
    }

    @Override
    public synchronized void follow(int partition, long offset) {
        followed.put(partition, offset);
    }

    @Override
    public synchronized void unfollow(int partition) {
        followed.remove(partition);
    }

    @Override
    public synchronized List<Fetched> poll() {
        List<Fetched> records = fetch();
        if (waits && records.isEmpty() && !woken) {
            try {
                wait(POLL_MS);
            } catch (InterruptedException error) {
                throw WaitInterruptedException.of(error);
            }
            records = fetch();
        }
        woken = false;
        return records;
    }

    private List<Fetched> fetch() {
        if (failing) {
            throw down();
        }
        List<Fetched> records = new ArrayList<>();
        followed.replaceAll((partition, offset) -> {
            List<Fetched> log = logs.get(partition);
            if (offset < starts[partition] || offset > log.size()) {
                throw new OutOfRangeException(Set.of(partition));
            }
            int end = (int) Math.min(log.size(), offset + pollRecords);
            records.addAll(log.subList((int) (long) offset, end));
            return (long) end;
        });
        reads += records.size();
        return records;
    }
}

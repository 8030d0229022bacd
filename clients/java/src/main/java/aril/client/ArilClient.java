package aril.client;

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * One tenant's connection: a producer of jobs, and one reader of the tenant's replies for however
 * many of them. For any number of threads.
 *
 * <pre>{@code
 * try (ArilClient client = ArilClient.builder("localhost:9092", "acme").open()) {
 *     Completion answer = client.complete(Job.prompt("Hello!").adapter("support").build());
 * }
 * }</pre>
 *
 * <p>The reader has no consumer group and commits nothing; a partition is read from where its jobs
 * need it, and not at all while none does.
 */
public final class ArilClient implements AutoCloseable {
    /** How long closing waits for cancels to be acknowledged. */
    private static final long CLOSE_SECONDS = 5;

    private final String tenant;
    private final String jobsTopic;
    private final Signer signer;
    private final int inboxEvents;
    private final Transport transport;
    private final Transport.Partitions partitions;
    private final ReplyReader reader;
    private final JobStream.Owner owner = new StreamOwner();
    private final AtomicBoolean closed = new AtomicBoolean();

    ArilClient(ClientBuilder options, Transport transport) {
        this.tenant = options.tenant;
        this.jobsTopic = options.jobsTopic;
        this.signer = options.signer;
        this.inboxEvents = options.inboxEvents;
        this.transport = transport;
        this.partitions = transport.open();
        this.reader = new ReplyReader(transport, "aril-replies-" + tenant);
        reader.start();
    }

    /**
     * Begins a connection.
     *
     * @param bootstrap host:port[,host:port] of the brokers
     */
    public static ClientBuilder builder(String bootstrap, String tenant) {
        return new ClientBuilder(bootstrap, tenant);
    }

    /**
     * Begins a connection as {@code ARIL_*} variables say, by the names that workers read:
     * ARIL_BOOTSTRAP, those of topics, TLS and SASL, ARIL_TENANT, and ARIL_KEY, a file to sign
     * with. Files are read here, once.
     *
     * @throws BadSettingException if a variable, or a file that one names, cannot be used
     * @throws BadKeyException if the key cannot
     */
    public static ClientBuilder fromEnv() {
        return Environment.builder(System.getenv(), null);
    }

    /** The same for a tenant that is named here. */
    public static ClientBuilder fromEnv(String tenant) {
        return Environment.builder(System.getenv(), tenant);
    }

    /** Sends a job, waits until the brokers have it, and returns its stream. */
    public JobStream stream(Job job) {
        return stream(job, null);
    }

    /**
     * The same, with a time in which the answer has to be complete.
     *
     * @param timeout from now on; past it iterating and waiting throw {@link JobTimeoutException},
     *     as this does while the job is being sent, and the job is cancelled. null: none
     * @throws InvalidJobException if the record is too large, or a text in it is none
     * @throws IllegalStateException if this client reads a job of this id already
     */
    public JobStream stream(Job job, Duration timeout) {
        checkOpen();
        Patience patience = Patience.of(timeout);
        byte[] key = key(job.id());
        int place = job.replyPartition() == null
                ? Murmur2.partition(key, partitions.replies())
                : job.replyPartition();
        if (place >= partitions.replies()) {
            throw new InvalidJobException("reply_partition: there are " + partitions.replies());
        }
        // What the reader reads next is as good as the log's end, and costs nothing.
        long start = reader.position(place)
                .orElseGet(() -> await(transport.logEnd(place), patience, job.id()));
        byte[] value = RequestEncoder.encode(job, tenant, start);
        Inbox inbox = new Inbox(job.id(), place, start, inboxEvents, null, Sha256.of(value));
        listen(inbox);
        try {
            await(send(key, value), patience, job.id());
        } catch (WaitInterruptedException | JobTimeoutException error) {
            owner.leave(inbox, true); // it may be sent all the same
            throw error;
        } catch (RuntimeException error) {
            owner.leave(inbox, false);
            throw error;
        }
        return new JobStream(owner, inbox, patience);
    }

    /** Sends a job and waits for its whole answer. */
    public Completion complete(Job job) {
        return stream(job).result();
    }

    /**
     * Returns the rest of a stream that an earlier client had begun to read: what comes after the
     * token; a Reset first, if what it covers was withdrawn.
     *
     * @throws BadTokenException if the reply topic has no such partition; the stream throws it if
     *     the token fits no place in it
     * @throws StreamLostException if the log no longer holds where the answer begins
     */
    public JobStream resume(ResumeToken token) {
        return resume(token, null);
    }

    /** The same, with a time as in {@link #stream(Job, Duration)}. */
    public JobStream resume(ResumeToken token, Duration timeout) {
        checkOpen();
        Patience patience = Patience.of(timeout);
        if (token.partition() >= partitions.replies()) {
            throw new BadTokenException("the reply topic has no partition " + token.partition());
        }
        CompletableFuture<Long> end = transport.logEnd(token.partition());
        long first;
        long last;
        try {
            first = await(transport.logStart(token.partition()), patience, token.job());
            last = await(end, patience, token.job());
        } catch (JobTimeoutException error) {
            sendCancel(token.job());
            throw error;
        }
        if (token.replyFrom() < first || token.replyFrom() > last) {
            throw new StreamLostException(
                    "replies to job " + token.job() + " begin at " + token.replyFrom()
                            + ", kept are " + first + " to " + last);
        }
        Mark mark = new Mark(token.resets(), token.count());
        Inbox inbox =
                new Inbox(token.job(), token.partition(), token.replyFrom(), inboxEvents, mark);
        listen(inbox);
        return new JobStream(owner, inbox, patience);
    }

    private void listen(Inbox inbox) {
        try {
            await(reader.add(inbox));
        } catch (WaitInterruptedException error) {
            reader.remove(inbox); // it may have been added
            throw error;
        }
    }

    /** Asks for a job to be ended; if it still runs, it ends in {@code CANCELLED}. */
    public void cancel(String job) {
        checkOpen();
        await(sendCancel(job));
    }

    private void checkOpen() {
        if (closed.get()) {
            throw new ClientClosedException("the client is closed");
        }
    }

    private CompletableFuture<Void> sendCancel(String job) {
        return send(key(job), RequestEncoder.encodeCancel(job, tenant));
    }

    /** The same partition for a job and its cancel, so that they stay in order. */
    private CompletableFuture<Void> send(byte[] key, byte[] value) {
        int place = Murmur2.partition(key, partitions.jobs());
        Map<String, byte[]> headers = signer == null
                ? Map.of()
                : Map.of(Signer.HEADER, signer.header(tenant, jobsTopic, place, key, value));
        return transport.send(place, key, value, headers);
    }

    private static byte[] key(String job) {
        return job.getBytes(StandardCharsets.UTF_8);
    }

    private static <T> T await(CompletableFuture<T> future) {
        return await(future, Patience.of(null), null);
    }

    private static <T> T await(CompletableFuture<T> future, Patience patience, String job) {
        try {
            return patience.until() == null
                    ? future.get()
                    : future.get(Math.max(0, patience.left()), TimeUnit.NANOSECONDS);
        } catch (TimeoutException error) {
            throw patience.over(job);
        } catch (InterruptedException error) {
            throw WaitInterruptedException.of(error);
        } catch (ExecutionException error) {
            if (error.getCause() instanceof RuntimeException told) {
                throw told;
            }
            throw new IllegalStateException(error.getCause());
        }
    }

    /** Disconnects. Jobs whose streams are unfinished and not detached are cancelled. */
    @Override
    public void close() {
        if (closed.getAndSet(true)) {
            return;
        }
        try {
            CompletableFuture<?>[] cancels = await(reader.inboxes()).stream()
                    .filter(inbox -> !inbox.finished())
                    .map(inbox -> sendCancel(inbox.job))
                    .toArray(CompletableFuture<?>[]::new);
            CompletableFuture.allOf(cancels).get(CLOSE_SECONDS, TimeUnit.SECONDS);
        } catch (TimeoutException | ExecutionException | ArilException error) {
            // A courtesy only: without them workers end these jobs later.
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        } finally {
            reader.close();
            transport.close();
        }
    }

    private final class StreamOwner implements JobStream.Owner {
        @Override
        public void taken(Inbox inbox) {
            reader.taken(inbox);
        }

        @Override
        public void leave(Inbox inbox, boolean cancel) {
            reader.remove(inbox);
            if (cancel && !closed.get() && !inbox.finished()) {
                sendCancel(inbox.job); // nobody waits for it, and nobody has to
            }
        }

        @Override
        public void cancel(String job) {
            ArilClient.this.cancel(job);
        }
    }
}

package aril.client;

import java.util.List;
import java.util.OptionalLong;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.LinkedBlockingQueue;

/**
 * The one thread that reads a tenant's replies, for however many jobs. All that moves the reader
 * is put into a queue and done by it, between polls.
 */
final class ReplyReader {
    private final Transport transport;
    private final Router router;
    private final BlockingQueue<Runnable> commands = new LinkedBlockingQueue<>();
    private final Thread thread;
    private boolean ended; // guarded by commands
    private volatile boolean closing;

    ReplyReader(Transport transport, String name) {
        this.transport = transport;
        this.router = new Router(transport);
        this.thread = new Thread(this::run, name);
        thread.setDaemon(true); // a program that forgot to close still ends
    }

    void start() {
        thread.start();
    }

    /** Returns the offset that is read next, if the partition is being read. */
    OptionalLong position(int partition) {
        return router.position(partition);
    }

    /** Begins to read for a job; done when nothing that is sent from now on can be missed. */
    CompletableFuture<Void> add(Inbox inbox) {
        CompletableFuture<Void> added = new CompletableFuture<>();
        boolean told = tell(() -> {
            try {
                if (closing) {
                    throw new ClientClosedException("the client is being closed");
                }
                router.add(inbox);
                added.complete(null);
            } catch (RuntimeException error) {
                added.completeExceptionally(error);
            }
        });
        if (!told) {
            added.completeExceptionally(new ClientClosedException("the client is closed"));
        }
        return added;
    }

    /** Stops reading for a job. */
    void remove(Inbox inbox) {
        tell(() -> router.remove(inbox));
    }

    /** Notes that a caller took an event. */
    void taken(Inbox inbox) {
        if (inbox.hasNewRoom()) {
            tell(() -> router.roomMade(inbox));
        }
    }

    /** Fails all jobs and ends the thread; returns when it has ended, also when interrupted. */
    void close() {
        closing = true;
        tell(() -> { });
        boolean interrupted = false;
        while (thread.isAlive()) {
            try {
                thread.join();
            } catch (InterruptedException error) {
                interrupted = true; // the transport must not be closed under a poll
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }

    /** Returns the inboxes of the jobs that are read at this moment. */
    CompletableFuture<List<Inbox>> inboxes() {
        CompletableFuture<List<Inbox>> found = new CompletableFuture<>();
        if (!tell(() -> found.complete(router.inboxes()))) {
            found.complete(List.of());
        }
        return found;
    }

    private boolean tell(Runnable command) {
        synchronized (commands) {
            if (ended) {
                return false;
            }
            commands.add(command);
        }
        transport.wakeup();
        return true;
    }

    private void run() {
        RuntimeException failure = new ClientClosedException("the client was closed");
        try {
            while (!closing) {
                Runnable command = router.following() ? commands.poll() : commands.take();
                if (command != null) {
                    command.run();
                } else {
                    read();
                }
            }
        } catch (InterruptedException error) {
            failure = WaitInterruptedException.of(error); // nobody but a test or a container does
        } catch (RuntimeException error) {
            failure = error;
        }
        end(failure);
    }

    private void end(RuntimeException failure) {
        closing = true;
        synchronized (commands) {
            ended = true;
        }
        commands.forEach(Runnable::run); // nobody waits for an answer that does not come
        String told = failure instanceof ClientClosedException
                ? failure.getMessage()
                : "reading replies has failed: " + failure;
        for (Inbox inbox : router.inboxes()) {
            ClientClosedException error = new ClientClosedException(told);
            error.initCause(failure);
            inbox.fail(error);
        }
    }

    private void read() {
        try {
            router.deliver(transport.poll());
        } catch (Transport.OutOfRangeException error) {
            error.partitions().forEach(this::trim);
        } catch (BrokerUnavailableException error) {
            router.failAll(() -> new BrokerUnavailableException(error.getMessage(), error));
        }
    }

    private void trim(int partition) {
        try {
            long start = transport.logStart(partition).join();
            router.trim(partition, start, transport.logEnd(partition).join());
        } catch (CompletionException error) {
            router.failAll(() -> new BrokerUnavailableException(
                    "the bounds of a reply log cannot be had", error.getCause()));
        }
    }
}

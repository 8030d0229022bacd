package aril.client;

import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.UUID;

/**
 * One prompt to complete. Fields and bounds are those of the wire contract, and are checked when a
 * job is made; {@code tenant} and {@code reply_from} are filled in by the client that sends it.
 *
 * @param id names the job for its tenant: sent again under it, it has the first answer
 * @param adapter {@code name} or {@code name@digest}; null: the backbone, or {@code adapters}
 * @param adapters several at once: what they add is added up; empty: none
 * @param adapterScale in [0, 4]: how strong adapters are
 * @param priority in [-100, 100]: higher goes first among the tenant's own waiting jobs
 * @param deadline from when the broker has the job, whole milliseconds; null: none
 * @param replyPartition where the answer goes; null: by the hash of the id
 * @param metadata echoed at the end
 * @param strict a worker refuses fields that it does not know
 */
public record Job(
        String id,
        Prompt prompt,
        String adapter,
        List<WeightedAdapter> adapters,
        double adapterScale,
        Sampling sampling,
        int priority,
        Duration deadline,
        Integer replyPartition,
        Map<String, String> metadata,
        boolean strict) {
    private static final double MAX_SCALE = 4;

    public Job {
        Check.name("id", id, Limits.JOB_ID);
        if (prompt == null) {
            throw new InvalidJobException("prompt: is required");
        }
        adapters = List.copyOf(adapters);
        Check.size("adapters", adapters, 0, Limits.MIXED_ADAPTERS);
        Check.within("adapter_scale", adapterScale, 0, MAX_SCALE);
        if (adapter != null) {
            Check.adapter("adapter", adapter);
            if (!adapters.isEmpty()) {
                throw new InvalidJobException("only one of adapter, adapters may be given");
            }
        } else if (adapters.isEmpty() && adapterScale != 1) {
            throw new InvalidJobException("adapter_scale goes with adapter or adapters");
        }
        Check.within("priority", priority, -Limits.PRIORITY, Limits.PRIORITY);
        if (deadline != null) {
            Check.within("deadline_ms", deadline.toMillis(), 1, Limits.DEADLINE_MS);
        }
        if (replyPartition != null) {
            Check.within("reply_partition", replyPartition, 0, Integer.MAX_VALUE);
        }
        metadata = Map.copyOf(metadata);
        Check.size("metadata", metadata.keySet(), 0, Limits.METADATA);
        metadata.forEach((key, value) -> {
            Check.text("metadata", key, 0, Limits.SHORT_CHARS);
            Check.text("metadata", value, 0, Limits.LONG_CHARS);
        });
    }

    /** Begins a job that continues a text. */
    public static Builder prompt(String text) {
        return of(new Prompt.Text(text));
    }

    /** Begins a job that answers in a conversation. */
    public static Builder chat(Message... messages) {
        return of(Prompt.Conversation.of(List.of(messages)));
    }

    /** Begins a job of any prompt. */
    public static Builder of(Prompt prompt) {
        return new Builder(prompt);
    }

    /** Collects what differs from the defaults. */
    public static final class Builder {
        private final Prompt prompt;
        private String id;
        private String adapter;
        private List<WeightedAdapter> adapters = List.of();
        private double adapterScale = 1;
        private Sampling sampling = Sampling.DEFAULT;
        private int priority;
        private Duration deadline;
        private Integer replyPartition;
        private Map<String, String> metadata = Map.of();
        private boolean strict;

        private Builder(Prompt prompt) {
            this.prompt = prompt;
        }

        /** Names the job; left out, it is a random UUID. */
        public Builder id(String value) {
            id = value;
            return this;
        }

        public Builder adapter(String nameOrNameAtDigest) {
            adapter = nameOrNameAtDigest;
            return this;
        }

        public Builder adapters(WeightedAdapter... mixture) {
            Check.size("adapters", List.of(mixture), 1, Limits.MIXED_ADAPTERS);
            adapters = List.of(mixture);
            return this;
        }

        public Builder adapterScale(double scale) {
            adapterScale = scale;
            return this;
        }

        public Builder sampling(Sampling value) {
            sampling = value;
            return this;
        }

        public Builder sampling(Sampling.Builder value) {
            return sampling(value.build());
        }

        public Builder priority(int value) {
            priority = value;
            return this;
        }

        public Builder deadline(Duration fromNow) {
            deadline = fromNow;
            return this;
        }

        public Builder replyPartition(int partition) {
            replyPartition = partition;
            return this;
        }

        public Builder metadata(Map<String, String> echoed) {
            metadata = echoed;
            return this;
        }

        public Builder strict(boolean value) {
            strict = value;
            return this;
        }

        /** Returns the job. Throws {@link InvalidJobException}. */
        public Job build() {
            return new Job(
                    id == null ? UUID.randomUUID().toString() : id,
                    prompt, adapter, adapters, adapterScale, sampling, priority, deadline,
                    replyPartition, metadata, strict);
        }
    }

    /** Holds no prompt: it would end in logs. */
    @Override
    public String toString() {
        return "Job[id=" + id + ", prompt=" + prompt + ", adapter=" + adapter + "]";
    }
}

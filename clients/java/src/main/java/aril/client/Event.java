package aril.client;

import java.util.List;
import java.util.Map;

/**
 * What a reader of an answer is told, in order: tokens, rarely a reset, and one end.
 *
 * <p>A {@link JobStream} gives the first three and throws {@link JobFailedException} for a
 * {@link Failed}, which only those meet who drive a {@link VisibleStream} themselves.
 */
public sealed interface Event {
    /**
     * Tokens became visible, and {@code text} with them; it may be empty.
     *
     * @param index of the first of them in the answer
     * @param logprobs a row for each of {@code ids}; empty if the job asked for none
     */
    record Tokens(int index, List<Integer> ids, String text, List<TokenLogprobs> logprobs)
            implements Event {
        public Tokens {
            ids = List.copyOf(ids);
            logprobs = List.copyOf(logprobs);
        }
    }

    /** All visible tokens, {@code withdrawn} of them, and their text are withdrawn: drop them. */
    record Reset(int withdrawn) implements Event {}

    /**
     * The answer is complete; {@code text} is the rest of it.
     *
     * @param index the number of tokens
     * @param adapter who answered, and {@code digest} its content; null: backbone or mixture
     * @param activation null for all that works everywhere
     * @param adapters a mixture's, else empty
     * @param baseDigest of the backbone's weights; null: not told
     * @param earlierBases digests of other backbones that brought some of the tokens
     * @param promptLogprobs null if the job asked for none
     * @param metadata the job's own
     */
    record Done(
            int index,
            String text,
            FinishReason finishReason,
            Usage usage,
            String adapter,
            String digest,
            Activation activation,
            List<MixedAdapter> adapters,
            String base,
            String baseDigest,
            List<String> earlierBases,
            long seed,
            Timings timings,
            PromptLogprobs promptLogprobs,
            Map<String, String> metadata)
            implements Event {
        public Done {
            adapters = List.copyOf(adapters);
            earlierBases = List.copyOf(earlierBases);
            metadata = Map.copyOf(metadata);
        }
    }

    /**
     * The job ended without a complete answer; what is visible stays visible.
     *
     * @param index the number of tokens
     * @param limit the bound that was passed; null: there is none
     * @param given what passed it, a Number or a String, or null
     * @param retryAfterMs when the job may come again; null: not known
     */
    record Failed(
            int index,
            ErrorCode code,
            String message,
            boolean retryable,
            Number limit,
            Object given,
            Long retryAfterMs,
            Map<String, String> metadata)
            implements Event {
        public Failed {
            metadata = Map.copyOf(metadata);
        }
    }
}

package aril.client;

import java.util.List;
import java.util.Map;

/**
 * How tokens are chosen and when an answer ends. Names, ranges and defaults are those of the wire
 * contract, which are OpenAI's and vLLM's. {@code n} is always 1: one answer a job.
 *
 * @param maxTokens null: to the end of the context, or the most that the service allows
 * @param minTokens before them nothing ends the answer
 * @param temperature 0 is greedy
 * @param topK 0 is off
 * @param seed null: one is drawn and told at the end
 * @param stop texts that end the answer and are not part of it
 * @param logitBias token id: what is added to its logit
 * @param logprobs null: none; n: the chosen token's and the n most likely ones'
 * @param promptLogprobs the same of the prompt's tokens, told at the end
 * @param form what the answer has to look like; null: anything
 */
public record Sampling(
        Integer maxTokens,
        int minTokens,
        double temperature,
        double topP,
        int topK,
        double minP,
        double repetitionPenalty,
        double presencePenalty,
        double frequencyPenalty,
        Long seed,
        List<String> stop,
        List<Integer> stopTokenIds,
        boolean ignoreEos,
        Map<Integer, Double> logitBias,
        Integer logprobs,
        Integer promptLogprobs,
        AnswerForm form) {
    /** What a job is sampled by that says nothing. */
    public static final Sampling DEFAULT = builder().build();

    private static final double MAX_TEMPERATURE = 2;
    private static final double LEAST_REPETITION = 0.1;
    private static final double MOST_REPETITION = 10;
    private static final double PENALTY = 2;
    private static final double BIAS = 100;

    public Sampling {
        if (maxTokens != null) {
            Check.within("sampling.max_tokens", maxTokens, 1, Limits.MAX_TOKENS);
        }
        Check.within("sampling.min_tokens", minTokens, 0, Limits.MAX_TOKENS);
        if (maxTokens != null && minTokens > maxTokens) {
            throw new InvalidJobException("sampling.min_tokens: more than max_tokens");
        }
        Check.within("sampling.temperature", temperature, 0, MAX_TEMPERATURE);
        Check.above("sampling.top_p", topP, 0, 1);
        Check.within("sampling.top_k", topK, 0, Integer.MAX_VALUE);
        Check.within("sampling.min_p", minP, 0, 1);
        String repetition = "sampling.repetition_penalty";
        Check.within(repetition, repetitionPenalty, LEAST_REPETITION, MOST_REPETITION);
        Check.within("sampling.presence_penalty", presencePenalty, -PENALTY, PENALTY);
        Check.within("sampling.frequency_penalty", frequencyPenalty, -PENALTY, PENALTY);
        if (seed != null) {
            Check.within("sampling.seed", seed, 0, Long.MAX_VALUE);
        }
        stop = List.copyOf(stop);
        Check.size("sampling.stop", stop, 0, Limits.STOPS);
        stop.forEach(each -> Check.text("sampling.stop", each, 1, Limits.STOP_CHARS));
        stopTokenIds = List.copyOf(stopTokenIds);
        Check.size("sampling.stop_token_ids", stopTokenIds, 0, Limits.STOP_TOKENS);
        stopTokenIds.forEach(id -> Check.tokenId("sampling.stop_token_ids", id));
        logitBias = Map.copyOf(logitBias);
        Check.size("sampling.logit_bias", logitBias.keySet(), 0, Limits.BIASES);
        logitBias.forEach((id, bias) -> {
            Check.tokenId("sampling.logit_bias", id);
            Check.within("sampling.logit_bias", bias, -BIAS, BIAS);
        });
        if (logprobs != null) {
            Check.within("sampling.logprobs", logprobs, 0, Limits.LOGPROBS);
        }
        if (promptLogprobs != null) {
            Check.within("sampling.prompt_logprobs", promptLogprobs, 0, Limits.LOGPROBS);
        }
    }

    public static Builder builder() {
        return new Builder();
    }

    /** Collects what differs from the defaults. */
    public static final class Builder {
        private Integer maxTokens;
        private int minTokens;
        private double temperature = 1;
        private double topP = 1;
        private int topK;
        private double minP;
        private double repetitionPenalty = 1;
        private double presencePenalty;
        private double frequencyPenalty;
        private Long seed;
        private List<String> stop = List.of();
        private List<Integer> stopTokenIds = List.of();
        private boolean ignoreEos;
        private Map<Integer, Double> logitBias = Map.of();
        private Integer logprobs;
        private Integer promptLogprobs;
        private AnswerForm form;

        private Builder() {}

        public Builder maxTokens(int most) {
            maxTokens = most;
            return this;
        }

        public Builder minTokens(int least) {
            minTokens = least;
            return this;
        }

        public Builder temperature(double value) {
            temperature = value;
            return this;
        }

        public Builder topP(double value) {
            topP = value;
            return this;
        }

        public Builder topK(int value) {
            topK = value;
            return this;
        }

        public Builder minP(double value) {
            minP = value;
            return this;
        }

        public Builder repetitionPenalty(double value) {
            repetitionPenalty = value;
            return this;
        }

        public Builder presencePenalty(double value) {
            presencePenalty = value;
            return this;
        }

        public Builder frequencyPenalty(double value) {
            frequencyPenalty = value;
            return this;
        }

        public Builder seed(long value) {
            seed = value;
            return this;
        }

        public Builder stop(String... texts) {
            stop = List.of(texts);
            return this;
        }

        public Builder stopTokenIds(List<Integer> ids) {
            stopTokenIds = ids;
            return this;
        }

        public Builder ignoreEos(boolean value) {
            ignoreEos = value;
            return this;
        }

        public Builder logitBias(Map<Integer, Double> biases) {
            logitBias = biases;
            return this;
        }

        public Builder logprobs(int alternatives) {
            logprobs = alternatives;
            return this;
        }

        public Builder promptLogprobs(int alternatives) {
            promptLogprobs = alternatives;
            return this;
        }

        public Builder form(AnswerForm value) {
            form = value;
            return this;
        }

        /** Returns the sampling. Throws {@link InvalidJobException}. */
        public Sampling build() {
            return new Sampling(
                    maxTokens, minTokens, temperature, topP, topK, minP, repetitionPenalty,
                    presencePenalty, frequencyPenalty, seed, stop, stopTokenIds, ignoreEos,
                    logitBias, logprobs, promptLogprobs, form);
        }
    }

    /** Holds no stop strings or forms: they are the tenant's words. */
    @Override
    public String toString() {
        return "Sampling[maxTokens=" + maxTokens + ", temperature=" + temperature + "]";
    }
}

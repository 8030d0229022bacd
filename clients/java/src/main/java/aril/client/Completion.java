package aril.client;

import java.util.List;
import java.util.Map;

/**
 * A finished answer, whole, whatever was streamed before; fields as in {@link Event.Done}.
 *
 * @param resets how often a part of it was withdrawn and written anew
 */
public record Completion(
        String job,
        String text,
        List<Integer> tokenIds,
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
        Map<String, String> metadata,
        int resets) {
    static Completion of(String job, VisibleStream visible, Event.Done done) {
        return new Completion(
                job,
                visible.text(),
                visible.tokenIds(),
                done.finishReason(),
                done.usage(),
                done.adapter(),
                done.digest(),
                done.activation(),
                done.adapters(),
                done.base(),
                done.baseDigest(),
                done.earlierBases(),
                done.seed(),
                done.timings(),
                done.promptLogprobs(),
                done.metadata(),
                visible.resets());
    }
}

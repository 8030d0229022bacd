package aril.client;

import java.util.List;

/**
 * Natural logarithms of probabilities at one position.
 *
 * @param chosen of the token that stands there
 * @param top of the most likely ones, as many as were asked for
 */
public record TokenLogprobs(double chosen, List<Alternative> top) {
    /** A token that could have stood there. */
    public record Alternative(int id, double logprob) {}

    public TokenLogprobs {
        top = List.copyOf(top);
    }
}
